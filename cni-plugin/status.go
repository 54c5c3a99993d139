//go:build linux

package cniplugin

import (
	"context"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// cmdStatus tells whether an ADD would work now, and if not, why.
func (p *Plugin) cmdStatus(ctx context.Context, c conf, args *skel.CmdArgs) error {
	env, err := ready(ctx, c, 0)
	if err != nil {
		return types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
	}
	if err := checkGateway(c, env); err != nil {
		return types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
	}
	if _, _, err := staleBridge(c, env); err != nil {
		return types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
	}
	delegate, err := delegateConf(c, env)
	if err != nil {
		return err
	}
	if err := p.run(ctx, "STATUS", delegate, delegationOf(args)); err != nil {
		return types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
	}
	return nil
}
