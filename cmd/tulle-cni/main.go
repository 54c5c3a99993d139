//go:build linux

// Command tulle-cni is the CNI plugin. Container runtimes start it under the name tulle, or flannel, once per container and command.
package main

import (
	"context"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	cni "github.com/containernetworking/cni/pkg/version"

	cniplugin "tulle/cni-plugin"
)

// version is set when the binary is linked.
var version = "dev"

func main() {
	plugin := cniplugin.New(os.Stdout, os.Stderr)
	skel.PluginMainFuncs(plugin.Funcs(context.Background()), cni.All, "CNI plugin tulle "+version)
}
