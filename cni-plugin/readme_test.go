//go:build linux

package cniplugin_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"tulle/internal/lab/machinetest"
	"tulle/ip"
)

// debianPlugin is one of the package containernetworking-plugins.
const debianPlugin = "/usr/lib/cni/bridge"

// aptGet stands in for apt-get, on a host where all is installed: containerd then runs.
const aptGet = `#!/bin/sh
[ "$*" = "install -y containerd containernetworking-plugins" ] || exit 1
` + runContainerd

// ctrScript stands in for ctr where it would pull an image from the internet.
const ctrScript = `#!/bin/sh
[ "$*" != "image pull %s" ] || exec %[2]s image import /run/image.tar
exec %[2]s "$@"
`

// TestReadme pastes the README's commands on two hosts, from the first to the containers.
func TestReadme(t *testing.T) {
	const section, exampleHost, exampleContainer = "## CNI with containerd", "192.0.2.10", "10.5.34.2"
	needsContainerd(t, debianPlugin)
	blocks := machinetest.ReadmeCommands(t, section)
	if len(blocks) != 2 {
		t.Fatalf("%s has %d blocks of commands, want two", section, len(blocks))
	}
	if count := strings.Count(strings.Join(blocks, ""), "\n"); count >= 10 {
		t.Errorf("%s has %d commands, want fewer than ten", section, count)
	}
	cluster := machinetest.ReadmeCommands(t, "## A cluster in five steps")
	if len(cluster) < 3 {
		t.Fatalf("the cluster has %d blocks of commands, want three and more", len(cluster))
	}
	l := newLab(t, []ip.Family{ip.IPv4})
	for i := range cluster {
		cluster[i] = strings.ReplaceAll(cluster[i], exampleHost, l.Hosts[0].Addr.V4.String())
	}
	ctr, err := exec.LookPath("ctr")
	if err != nil {
		t.Fatal(err)
	}
	var machines []*machinetest.Machine
	for _, host := range l.Hosts {
		m := newContainerdMachine(t, host)
		m.WithSystemctl(t)
		m.Program(t, "apt-get", aptGet)
		m.Program(t, "ctr", fmt.Sprintf(ctrScript, containerdImage, ctr))
		machines = append(machines, m)
	}
	// The store stays in the foreground of another terminal.
	machines[0].Paste(t, strings.TrimSuffix(cluster[0], "\n")+" &\n"+cluster[1])
	addr := map[*machinetest.Machine]netip.Addr{}
	for _, m := range machines {
		m.Paste(t, cluster[2])
		m.Paste(t, blocks[0])
		// The way to find the address that the text between the blocks tells.
		addr[m] = machinetest.AddrIn(t, ctrExec(t, m, "one", "ip", "addr", "show", "eth0"))
	}
	for _, pair := range [][2]*machinetest.Machine{{machines[0], machines[1]}, {machines[1], machines[0]}} {
		pair[0].Paste(t, strings.ReplaceAll(blocks[1], exampleContainer, addr[pair[1]].String()))
	}

	// That source addresses are preserved is what the cluster's fifth step says.
	client, server := machines[0], machines[1]
	ctrExec(t, server, "one", "httpd", "-h", "/www")
	get := fmt.Sprintf("printf 'GET /cgi-bin/from HTTP/1.0\\r\\n\\r\\n' | nc -w 5 %s 80", addr[server])
	if got := ctrExec(t, client, "one", "sh", "-c", get); !strings.Contains(got, addr[client].String()) {
		t.Errorf("the server says that it sees %q, want %s", got, addr[client])
	}
}
