package agent

import (
	"errors"
	"fmt"
	"slices"

	"tulle/ip"
)

// advise says what to do about settings that cannot be set here, as in a container whose /proc/sys is read-only. Those without
// which no packet is forwarded are an error.
func advise(unset []ip.Op) (advice []string, unfit error) {
	var missing []error
	for _, op := range unset {
		want, _ := op.New.(ip.Sysctl)
		have, exists := op.Old.(ip.Sysctl)
		if !exists {
			continue // as good as set: there is nothing that it would change
		}
		text := fmt.Sprintf("%s is %s and cannot be written here: run %s on the host, or mount /proc/sys writable", want.Key, have.Value, op)
		if want.Optional {
			advice = append(advice, text)
		} else {
			missing = append(missing, errors.New(text))
		}
	}
	return advice, errors.Join(missing...)
}

// accept returns want without the settings that cannot be set.
func accept(want ip.State, unset []ip.Op) ip.State {
	want.Sysctls = slices.DeleteFunc(slices.Clone(want.Sysctls), func(s ip.Sysctl) bool {
		return slices.ContainsFunc(unset, func(op ip.Op) bool { return op.New == ip.Object(s) })
	})
	return want
}

// randomNode says what to keep of a host that has no lasting node id.
func (a *Agent) randomNode() string {
	return fmt.Sprintf("the node id %s is made at random, since there is no /etc/machine-id and %s held none: "+
		"in a container, mount both from the host, or set --node-id", a.cfg.Host.Node, a.cfg.StateDir)
}
