//go:build linux

package cniplugin_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types/create"

	"tulle/internal/netns/netnstest"
)

// What flannel's own manifests install, and what a runtime makes of the conflist for the plugin.
const (
	flannelEnv = `FLANNEL_NETWORK=10.50.0.0/16
FLANNEL_SUBNET=10.50.58.1/24
FLANNEL_IPV6_NETWORK=fc00:50::/48
FLANNEL_IPV6_SUBNET=fc00:50:0:5d::1/64
FLANNEL_MTU=1450
FLANNEL_IPMASQ=`
	flannelConf = `{"name":"cbr0","cniVersion":"0.3.1","type":"flannel","delegate":{"hairpinMode":true,"isDefaultGateway":true}}`
	// flannelState is what the flannel plugin keeps under the container's id, and gave to its delegate.
	flannelState = `{"cniVersion":"0.3.1","hairpinMode":true,"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.50.58.0/24"}],[{"subnet":"fc00:50:0:5d::/64"}]],` +
		`"routes":[{"dst":"10.50.0.0/16"},{"dst":"fc00:50::/48"}],"type":"host-local"},"isDefaultGateway":true,"isGateway":true,"mtu":1450,"name":"cbr0","type":"bridge"}`
)

// flannelHost is a host with flannel's files where flannel has them, in a view of the file system of its own.
func flannelHost(t *testing.T, masquerade string) *host {
	t.Helper()
	netnstest.RequireOwnMounts(t)
	h := newDualHost(t)
	for path, text := range map[string]string{"run/flannel/subnet.env": flannelEnv + masquerade + "\n", "lib/cni/flannel/.keep": ""} {
		path = filepath.Join(h.dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// run runs a plugin of that name as a runtime would.
func (h *host) run(t *testing.T, plugin string, c container, command, conf string) string {
	t.Helper()
	cmd := h.command(c, "eth0", command, []byte(conf))
	view := `mount --bind "$0/run" /run && mount --bind "$0/lib" /var/lib && exec "$1"`
	inside := exec.Command("unshare", "--mount", "sh", "-c", view, h.dir, filepath.Join(built().cni, plugin))
	inside.Stdin, inside.Env = cmd.Stdin, cmd.Env
	var stderr strings.Builder
	inside.Stderr = &stderr
	var out []byte
	if err := h.ns.Do(func() (err error) { out, err = inside.Output(); return err }); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", plugin, command, err, out, &stderr)
	}
	return string(out)
}

// A host with flannel's conflist and subnet file needs only another program under the name flannel.
func TestInPlaceOfFlannel(t *testing.T) {
	for _, masquerade := range []string{"true", "false"} {
		t.Run("masquerade "+masquerade, func(t *testing.T) {
			h := flannelHost(t, masquerade)
			c := newContainer(t, "0a1b2c")
			res, err := create.CreateFromBytes([]byte(h.run(t, "flannel", c, "ADD", flannelConf)))
			if err != nil {
				t.Fatal(err)
			}
			addrs := addrsIn(t, res)
			if got := addrs.V4.String() + " " + addrs.V6.String(); got != "10.50.58.2/24 fc00:50:0:5d::2/64" {
				t.Errorf("addresses = %s, want the first of both subnets", got)
			}
			h.run(t, "flannel", c, "DEL", flannelConf)
			wantOnlyLoopback(t, c)
			h.wantNothingOfFlannel(t)
		})
	}
}

// Containers that were started under flannel are stopped under Tulle.
func TestDelOfFlannelsContainer(t *testing.T) {
	for _, text := range []string{flannelState, flannelState[:100]} {
		h := flannelHost(t, "true")
		c := newContainer(t, "0a1b2c")
		h.run(t, "bridge", c, "ADD", flannelState)
		if err := os.WriteFile(filepath.Join(h.dir, "lib/cni/flannel", c.id), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		h.run(t, "flannel", c, "DEL", flannelConf)
		wantOnlyLoopback(t, c)
		h.wantNothingOfFlannel(t)
	}
}

func (h *host) wantNothingOfFlannel(t *testing.T) {
	t.Helper()
	for dir, want := range map[string][]string{
		"lib/cni/flannel":       {".keep"},
		"lib/cni/networks/cbr0": {"last_reserved_ip.0", "last_reserved_ip.1", "lock"},
	} {
		entries, err := os.ReadDir(filepath.Join(h.dir, dir))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s holds %q, want %q", dir, names, want)
		}
	}
}
