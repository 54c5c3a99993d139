//go:build linux

package cniplugin

import (
	"github.com/containernetworking/cni/pkg/types"

	"tulle/internal/holder"
	"tulle/ip/kernel/bridge"
	"tulle/subnet/flannel"
)

// errContested is the error code for another bridge that hands out the lease, as Docker's does.
const errContested = 101

// checkGateway refuses to attach containers while another bridge than the delegate's has the gateway's address: whatever made it hands
// out the same addresses.
func checkGateway(c conf, env flannel.Env) error {
	bridges, err := bridge.List()
	if err != nil {
		return err
	}
	var h holder.Host
	for _, b := range bridges {
		h.Bridges = append(h.Bridges, holder.Bridge(b))
	}
	if err := h.Gateway(env.Subnets, bridgeOf(c)); err != nil {
		return types.NewError(errContested, err.Error(), "")
	}
	return nil
}
