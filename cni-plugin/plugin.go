//go:build linux

// Package cniplugin is the CNI plugin: it attaches containers to this host's slice of the network, by way of other plugins.
package cniplugin

import (
	"context"
	"fmt"
	"io"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"

	"tulle/internal/printable"
)

// Plugin carries out the commands of the CNI specification 1.1.0 (https://www.cni.dev/docs/spec).
type Plugin struct {
	exec           invoke.Exec
	stdout, stderr io.Writer
}

// New makes a plugin that writes results to stdout and remarks to stderr.
func New(stdout, stderr io.Writer) *Plugin {
	return &Plugin{exec: &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: stderr}}, stdout: stdout, stderr: stderr}
}

// Funcs are the plugin's commands, each bounded by ctx.
func (p *Plugin) Funcs(ctx context.Context) skel.CNIFuncs {
	undoing := func(run command) func(*skel.CmdArgs) error {
		return func(args *skel.CmdArgs) error {
			c, err := parseConf(args.StdinData)
			if err != nil {
				return err
			}
			return run(ctx, c, args)
		}
	}
	// A configuration that was spoiled since must not keep containers from ending.
	making := func(run command) func(*skel.CmdArgs) error {
		return undoing(func(ctx context.Context, c conf, args *skel.CmdArgs) error {
			if err := c.check(); err != nil {
				return err
			}
			return run(ctx, c, args)
		})
	}
	return skel.CNIFuncs{
		Add: making(p.cmdAdd), Check: making(p.cmdCheck), Status: making(p.cmdStatus),
		Del: undoing(p.cmdDel), GC: undoing(p.cmdGC),
	}
}

// command is a command of the specification.
type command func(context.Context, conf, *skel.CmdArgs) error

// remark tells the operator something that is no error. Runtimes put stderr into their logs.
func (p *Plugin) remark(format string, args ...any) {
	fmt.Fprintln(p.stderr, "tulle: "+printable.Lines(fmt.Sprintf(format, args...)))
}
