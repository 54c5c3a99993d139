//go:build linux

package cniplugin

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"

	"tulle/internal/settings"
)

// What counts unless the configuration says otherwise.
const (
	defaultDataDir  = "/var/lib/cni/flannel" // the flannel plugin's
	defaultDelegate = "bridge"
	defaultIPAM     = "host-local"
)

// object is a JSON object whose members are passed on as they were written.
type object map[string]json.RawMessage

// conf is the network configuration that the runtime hands over. Members that are not listed are for others.
type conf struct {
	CNIVersion    string          `json:"cniVersion"`
	Name          string          `json:"name"`
	SubnetFile    string          `json:"subnetFile"`    // that tulled writes
	DataDir       string          `json:"dataDir"`       // for what is known of each attachment
	RunDir        string          `json:"runDir"`        // tulled's, with the socket
	Delegate      object          `json:"delegate"`      // configuration of the plugin that does the work
	IPAM          object          `json:"ipam"`          // that of its address management
	RuntimeConfig json.RawMessage `json:"runtimeConfig"` // what the runtime adds, such as a MAC
	PrevResult    json.RawMessage `json:"prevResult"`    // only at CHECK

	// GC names it with a slash, so it is taken from the raw object.
	attachments json.RawMessage
}

// parseConf reads a configuration as far as what is needed to undo an attachment.
func parseConf(stdin []byte) (conf, error) {
	var c conf
	var all object
	if err := errors.Join(json.Unmarshal(stdin, &c), json.Unmarshal(stdin, &all)); err != nil {
		return c, types.NewError(types.ErrDecodingFailure, "network configuration: "+err.Error(), "")
	}
	c.attachments = all[validAttachments]
	c.SubnetFile = cmp.Or(c.SubnetFile, settings.DefaultSubnetFile)
	c.DataDir = cmp.Or(c.DataDir, defaultDataDir)
	c.RunDir = cmp.Or(c.RunDir, settings.DefaultRunDir)
	return c, nil
}

// check finds what keeps a configuration from making attachments, and says in which field it is.
func (c conf) check() error {
	if err := c.fault(); err != nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "network configuration: "+err.Error(), "")
	}
	return nil
}

func (c conf) fault() error {
	for _, field := range []struct{ name, remedy string }{
		{"name", "the network's name is used"},
		{"ipam", "put it beside the delegate, not into it"},
	} {
		if value, ok := c.Delegate[field.name]; ok {
			return fmt.Errorf("delegate.%s is %s, must be absent: %s", field.name, value, field.remedy)
		}
	}
	if _, err := text(c.Delegate, "type", defaultDelegate); err != nil {
		return fmt.Errorf("delegate.%w", err)
	}
	if _, err := text(c.IPAM, "type", defaultIPAM); err != nil {
		return fmt.Errorf("ipam.%w", err)
	}
	if _, err := c.userRoutes(); err != nil {
		return err
	}
	return nil
}

func (c conf) userRoutes() ([]json.RawMessage, error) {
	var routes []json.RawMessage
	if value, ok := c.IPAM["routes"]; ok {
		if err := json.Unmarshal(value, &routes); err != nil {
			return nil, fmt.Errorf(`ipam.routes is %s, must be a list such as [{"dst": "10.0.0.0/8"}]`, value)
		}
	}
	return routes, nil
}

// text returns a member of o that must be a string.
func text(o object, name, absent string) (string, error) {
	value, ok := o[name]
	if !ok {
		return absent, nil
	}
	var s string
	if err := json.Unmarshal(value, &s); err != nil || s == "" {
		return "", fmt.Errorf("%s is %s, must be a string such as %q", name, value, absent)
	}
	return s, nil
}

// textOr is text of an object that was checked.
func textOr(o object, name, absent string) string {
	s, err := text(o, name, absent)
	if err != nil {
		return absent
	}
	return s
}
