//go:build linux

package lab

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"tulle/internal/netns"
	"tulle/ip"
	"tulle/subnet/flannel"
)

// A running lab is entered although the lease of a host lacks one of the lab's families.
func TestReopenWithoutAFamily(t *testing.T) {
	dir := t.TempDir()
	l := &Lab{Config: Config{Detach: true, Dir: dir, Hosts: 1, Containers: 1, Segments: 1, Families: []ip.Family{ip.IPv4, ip.IPv6}}}
	h := &Host{Name: "h1", Dir: dir, lab: l, node: &node{name: "h1"}}
	env := flannel.Env{MTU: 1450}
	env.Network.V4, env.Subnets.V4 = netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("10.5.7.0/24")
	if _, err := env.WriteFile(h.SubnetFile()); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(l.pins(), 0o755); err != nil {
		t.Fatal(err)
	}
	container, err := newNode("h1/c1", l.pins())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(container.close(), netns.Unpin(pinPath(l.pins(), container.name))); err != nil {
			t.Error(err)
		}
	})
	if err := h.reopenContainers(1); err != nil {
		t.Fatal(err)
	}
	for _, c := range h.Containers {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	}
	if got := h.Containers; len(got) != 1 || got[0].Addr.V4 != netip.MustParseAddr("10.5.7.2") || got[0].Addr.V6.IsValid() {
		t.Errorf("containers %v, want one with an IPv4 address alone", got)
	}
}
