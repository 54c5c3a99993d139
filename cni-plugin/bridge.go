//go:build linux

package cniplugin

import "tulle/ip/kernel/bridge"

// defaultBridge is the bridge plugin's.
const defaultBridge = "cni0"

// bridgeOf is the bridge of the delegate; empty if it is of another kind.
func bridgeOf(c conf) string {
	if textOr(c.Delegate, "type", defaultDelegate) != defaultDelegate {
		return ""
	}
	return textOr(c.Delegate, "bridge", defaultBridge)
}

// missingBridge is the bridge that the delegate has to make; empty if it is there.
func missingBridge(c conf) (string, error) {
	name := bridgeOf(c)
	if name == "" {
		return "", nil
	}
	exists, err := bridge.Exists(name)
	if exists {
		name = ""
	}
	return name, err
}

// markBridge marks the bridge that came with an attachment, which no plugin ever removes, for tulle cleanup. If the plugin was
// killed before, it is done when the attachment is undone; but a bridge that is there after a reboot may be another's.
func (p *Plugin) markBridge(r record) {
	if r.Bridge == "" || !r.sameNetns() {
		return
	}
	if err := bridge.Mark(r.Bridge); err != nil {
		p.remark("mark bridge: %v", err)
	}
}
