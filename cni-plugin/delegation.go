//go:build linux

package cniplugin

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// delegation is one run of another plugin: what it is told by way of its environment.
type delegation struct {
	container, ifname, netns, args, path string
}

// delegationOf passes on what this plugin was told.
func delegationOf(args *skel.CmdArgs) delegation {
	return delegation{container: args.ContainerID, ifname: args.IfName, netns: args.Netns, args: args.Args, path: args.Path}
}

func (d delegation) env(command string) *invoke.Args {
	return &invoke.Args{Command: command, ContainerID: d.container, NetNS: d.netns, PluginArgsStr: d.args, IfName: d.ifname, Path: d.path}
}

// find returns the program of the plugin that conf is for.
func (p *Plugin) find(conf json.RawMessage, d delegation) (string, error) {
	kind, err := delegateField(conf, "type")
	if err != nil {
		return "", err
	}
	return p.exec.FindInPath(kind, filepath.SplitList(d.path))
}

// blame says which plugin an error is of, and keeps its code.
func blame(program string, err error) error {
	var reported *types.Error
	if errors.As(err, &reported) {
		return types.NewError(reported.Code, filepath.Base(program)+": "+reported.Msg, reported.Details)
	}
	return err
}

// run has the delegate carry out a command that gives no result.
func (p *Plugin) run(ctx context.Context, command string, conf json.RawMessage, d delegation) error {
	program, err := p.find(conf, d)
	if err != nil {
		return err
	}
	return blame(program, invoke.ExecPluginWithoutResult(ctx, program, conf, d.env(command), p.exec))
}

// add has the delegate make an attachment.
func (p *Plugin) add(ctx context.Context, conf json.RawMessage, d delegation) (types.Result, error) {
	program, err := p.find(conf, d)
	if err != nil {
		return nil, err
	}
	result, err := invoke.ExecPluginWithResult(ctx, program, conf, d.env("ADD"), p.exec)
	return result, blame(program, err)
}
