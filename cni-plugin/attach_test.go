//go:build linux

package cniplugin_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/types/create"

	"tulle/ip"
)

func newDualHost(t *testing.T) *host {
	t.Helper()
	return bareHost(t, envOf("10.50.7.0/24", "fc00:50:0:5d::/64"))
}

// Every version of the specification from 0.3.1 on gets a result of its own version, by old plugins as by new ones.
func TestVersions(t *testing.T) {
	versions := []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}
	t.Run("newest plugins", func(t *testing.T) { testVersions(t, newDualHost(t), versions) })
	t.Run("Debian's plugins", func(t *testing.T) {
		needsDebianPlugins(t)
		h := newDualHost(t)
		h.plugins = built().debian
		testVersions(t, h, versions[:3]) // 1.1.1 knows no more
	})
}

func testVersions(t *testing.T, h *host, versions []string) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			conf := h.conf(map[string]any{"cniVersion": version})
			c := newContainer(t, "c")
			var res struct{ CNIVersion string }
			added := h.must(t, c, "eth0", "ADD", conf)
			if err := json.Unmarshal(added, &res); err != nil || res.CNIVersion != version {
				t.Errorf("result is of version %q, %v; want %s", res.CNIVersion, err, version)
			}
			if version != "0.3.1" { // which has no CHECK
				h.must(t, c, "eth0", "CHECK", h.conf(map[string]any{"cniVersion": version, "prevResult": json.RawMessage(added)}))
			}
			h.must(t, c, "eth0", "DEL", conf)
			h.wantNothingLeft(t)
		})
	}
	var info struct{ SupportedVersions []string }
	out, _, err := h.cni(container{}, "", "VERSION", nil)
	if err := errors.Join(err, json.Unmarshal(out, &info)); err != nil || !slices.Contains(info.SupportedVersions, "1.1.0") || !slices.Contains(info.SupportedVersions, "0.3.1") {
		t.Errorf("VERSION = %s, %v; want 0.3.1 to 1.1.0", out, err)
	}
}

// Two interfaces of one container come and go independently.
func TestTwoAttachments(t *testing.T) {
	h := newDualHost(t)
	conf, c := h.conf(nil), newContainer(t, "c")
	first, second := h.add(t, c, "eth0", conf), h.add(t, c, "eth1", conf)
	if first == second {
		t.Errorf("both interfaces got %v", first)
	}
	h.refuses(t, c, "ADD", conf, types.ErrInvalidEnvironmentVariables, "DEL comes before the next ADD")
	h.must(t, c, "eth0", "DEL", conf)
	if got, want := c.interfaces(t), []string{"lo", "eth1"}; !slices.Equal(got, want) {
		t.Errorf("interfaces after DEL of eth0 = %q, want %q", got, want)
	}
	for range 2 {
		h.must(t, c, "eth1", "DEL", conf)
	}
	h.wantNothingLeft(t)
}

// DEL removes the interface whatever became of the files.
func TestDelWithout(t *testing.T) {
	for name, lose := range map[string]func(*testing.T, *host){
		"subnet file": func(t *testing.T, h *host) { remove(t, h.subnetFile) },
		"state":       func(t *testing.T, h *host) { remove(t, h.state("c")) },
		"the end of a write": func(t *testing.T, h *host) {
			if err := os.Rename(h.state("c"), filepath.Join(h.states(), ".fabric:c:eth0.new")); err != nil {
				t.Fatal(err)
			}
		},
		"both": func(t *testing.T, h *host) { remove(t, h.subnetFile, h.state("c")) },
		"the same subnet": func(t *testing.T, h *host) {
			h.lease(t, envOf("10.50.8.0/24", "fc00:50:0:5e::/64"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newDualHost(t)
			c := newContainer(t, "c")
			h.add(t, c, "eth0", h.conf(nil))
			lose(t, h)
			for range 2 {
				h.must(t, c, "eth0", "DEL", h.conf(nil))
			}
			wantOnlyLoopback(t, c)
			h.wantNothingLeft(t)
		})
	}
}

// A configuration that no container could be attached by can still be detached by.
func TestDelWithSpoiledConf(t *testing.T) {
	h := newDualHost(t)
	spoiled := h.conf(map[string]any{"delegate": map[string]any{"name": "x", "type": 7}})
	c := newContainer(t, "c")
	h.refuses(t, c, "ADD", spoiled, types.ErrInvalidNetworkConfig, `delegate.name is "x"`)
	h.add(t, c, "eth0", h.conf(nil))
	h.must(t, c, "eth0", "DEL", spoiled)
	wantOnlyLoopback(t, c)
	h.wantNothingLeft(t)
}

// slowKernel is what the bridge plugin says of a kernel that has not got round to an IPv6 address in 5 s, as one may whose lock of all links many want.
const slowKernel = "still has tentative addresses"

// Containers that start at the same moment get an address each.
func TestManyAtOnce(t *testing.T) {
	h := newDualHost(t)
	var mu sync.Mutex
	holders := map[netip.Prefix]string{}
	var wg sync.WaitGroup
	for i := range 16 {
		c := newContainer(t, fmt.Sprintf("c%d", i))
		wg.Go(func() {
			var out []byte
			var stderr string
			var err error
			for range 10 { // a runtime tries again, too
				if out, stderr, err = h.cni(c, "eth0", "ADD", h.conf(nil)); err == nil || !strings.Contains(err.Error(), slowKernel) {
					break
				}
			}
			if err != nil {
				t.Errorf("ADD of %s: %v\n%s", c.id, err, stderr)
				return
			}
			res, err := create.CreateFromBytes(out)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			addr := addrsIn(t, res).V4
			if other, ok := holders[addr]; ok {
				t.Errorf("%s and %s both got %s", c.id, other, addr)
			}
			holders[addr] = c.id
			mu.Unlock()
			if _, stderr, err := h.cni(c, "eth0", "DEL", h.conf(nil)); err != nil {
				t.Errorf("DEL of %s: %v\n%s", c.id, err, stderr)
			}
		})
	}
	wg.Wait()
	h.wantNothingLeft(t)
}

func TestDelWithCorruptState(t *testing.T) {
	h := newDualHost(t)
	for _, text := range []string{"", `{"delegate":{"type":"bri`, `[]`} {
		c := newContainer(t, "c")
		h.add(t, c, "eth0", h.conf(nil))
		if err := os.WriteFile(h.state("c"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, stderr, err := h.cni(c, "eth0", "DEL", h.conf(nil))
		if err != nil || !strings.Contains(stderr, h.state("c")+" is corrupt") {
			t.Errorf("DEL = %v, stderr %q; want success, and that %s is corrupt", err, stderr, h.state("c"))
		}
		wantOnlyLoopback(t, c)
		h.wantNothingLeft(t)
	}
}

// A container whose namespace is gone holds no address after DEL.
func TestDelAfterNamespaceIsGone(t *testing.T) {
	h := newDualHost(t)
	c := newContainer(t, "c")
	h.add(t, c, "eth0", h.conf(nil))
	for _, netns := range []string{filepath.Join(h.dir, "gone"), ""} {
		h.must(t, container{c.id, netns}, "eth0", "DEL", h.conf(nil))
	}
	if found := h.left(t); len(found) != 1 || !strings.HasPrefix(found[0], "link ") {
		t.Errorf("left over: %q, want the link of the namespace that lives on", found)
	}
}

// What a reboot leaves of a container does not keep it from starting again.
func TestAddAfterReboot(t *testing.T) {
	h := newDualHost(t)
	earlier := newContainer(t, "c")
	h.add(t, earlier, "eth0", h.conf(nil))
	earlier.ip(t, "link", "delete", "eth0")
	again := newContainer(t, "c")
	h.add(t, again, "eth0", h.conf(nil))
	h.must(t, again, "eth0", "DEL", h.conf(nil))
	h.wantNothingLeft(t)
}

// A failed ADD leaves nothing.
func TestFailedAdd(t *testing.T) {
	h := newDualHost(t)
	c := newContainer(t, "c")
	c.ip(t, "link", "add", "eth0", "type", "bridge")
	if _, _, err := h.cni(c, "eth0", "ADD", h.conf(nil)); err == nil {
		t.Error("ADD of an interface that exists succeeds")
	}
	h.wantNothingLeft(t)
	h.refuses(t, c, "ADD", h.conf(map[string]any{"delegate": map[string]any{"type": "no-such-plugin"}}), types.ErrInternal, `"no-such-plugin"`)
	h.wantNothingLeft(t)
}

func TestNotReady(t *testing.T) {
	h := newDualHost(t)
	remove(t, h.subnetFile)
	c := newContainer(t, "c")
	reason := "no tulled answers on " + filepath.Join(h.runDir, "tulled.sock")
	h.refuses(t, c, "ADD", h.conf(nil), types.ErrTryAgainLater, reason)
	h.refuses(t, c, "STATUS", h.conf(nil), types.ErrPluginNotAvailable, reason)
	h.wantNothingLeft(t)
	h.lease(t, envOf("10.50.7.0/24", "fc00:50:0:5d::/64"))
	h.must(t, c, "eth0", "STATUS", h.conf(nil))
	h.refuses(t, c, "STATUS", h.conf(map[string]any{"delegate": map[string]any{"type": "no-such-plugin"}}), types.ErrPluginNotAvailable, "no-such-plugin")
}

// An earlier lease's address is replaced as long as nothing uses it, and explained otherwise.
func TestBridgeOfAnEarlierLease(t *testing.T) {
	h := newDualHost(t)
	old, c := newContainer(t, "old"), newContainer(t, "new")
	h.add(t, old, "eth0", h.conf(nil))
	h.lease(t, envOf("10.50.8.0/24", "fc00:50:0:5e::/64"))
	const reason = "bridge cni0 has containers in 10.50.7.0/24 and fc00:50:0:5d::/64, an earlier lease, and this host's subnet is now 10.50.8.0/24 and fc00:50:0:5e::/64: stop what hangs"
	h.refuses(t, c, "ADD", h.conf(nil), 100, reason)
	h.refuses(t, c, "STATUS", h.conf(nil), types.ErrPluginNotAvailable, reason)
	if found := h.left(t); len(found) != 4 {
		t.Errorf("the host has %q, want what belongs to the old container", found)
	}
	h.must(t, old, "eth0", "DEL", h.conf(nil))
	h.must(t, c, "eth0", "STATUS", h.conf(nil))
	got := h.add(t, c, "eth0", h.conf(nil))
	for _, f := range ip.Families() {
		if subnet := envOf("10.50.8.0/24", "fc00:50:0:5e::/64").Subnets.Of(f); !subnet.Contains(got.Of(f).Addr()) {
			t.Errorf("the container got %s, want an address in %s", got.Of(f), subnet)
		}
	}
	h.must(t, c, "eth0", "DEL", h.conf(nil))
	h.wantNothingLeft(t)
}

func TestCheck(t *testing.T) {
	h := newDualHost(t)
	c := newContainer(t, "c")
	res := h.must(t, c, "eth0", "ADD", h.conf(nil))
	conf := h.conf(map[string]any{"prevResult": json.RawMessage(res)})
	h.must(t, c, "eth0", "CHECK", conf)
	h.refuses(t, c, "CHECK", h.conf(nil), types.ErrInvalidNetworkConfig, "prevResult is missing")
	h.refuses(t, container{"other", c.netns}, "CHECK", conf, types.ErrUnknownContainer, "container other has no interface eth0 on network fabric")

	c.ip(t, "link", "set", "eth0", "mtu", "1500")
	h.refuses(t, c, "CHECK", conf, types.ErrInternal, "MTU is 1500, must be at most the 1450 that the network carries")
	c.ip(t, "link", "set", "eth0", "mtu", "1400")
	h.must(t, c, "eth0", "CHECK", conf)

	h.lease(t, envOf("10.50.8.0/24", "fc00:50:0:5d::/64"))
	h.refuses(t, c, "CHECK", conf, types.ErrInternal, "is not in 10.50.8.0/24, which is this host's subnet now")
	h.lease(t, envOf("10.50.7.0/24", "fc00:50:0:5d::/64"))
	c.ip(t, "-6", "route", "del", "default")
	h.refuses(t, c, "CHECK", conf, types.ErrInternal, "bridge: Expected Route {Dst:{IP:::")
	h.must(t, c, "eth0", "DEL", conf)
	h.wantNothingLeft(t)
}

// GC frees what no DEL came for, and nothing else.
func TestGC(t *testing.T) {
	h := newDualHost(t)
	keep, drop, corrupt, unknown := newContainer(t, "keep"), newContainer(t, "drop"), newContainer(t, "corrupt"), newContainer(t, "unknown")
	h.add(t, keep, "eth0", h.conf(nil))
	before := h.left(t)
	for _, c := range []container{drop, corrupt, unknown} {
		h.add(t, c, "eth0", h.conf(nil))
	}
	h.add(t, keep, "eth1", h.conf(nil))
	if err := os.WriteFile(h.state("corrupt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	remove(t, h.state("unknown"))
	for name, text := range map[string]string{".fabric:crashed:eth0.new": "", "flannels": `{"name":"fabric","type":"bridge"}`, "anothers": `{"name":"x"}`} {
		if err := os.WriteFile(filepath.Join(h.states(), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.refuses(t, container{}, "GC", h.conf(nil), types.ErrInvalidNetworkConfig, "cni.dev/valid-attachments is missing")
	valid := []types.GCAttachment{{ContainerID: "keep", IfName: "eth0"}}
	h.must(t, container{}, "", "GC", h.conf(map[string]any{"cni.dev/valid-attachments": valid}))
	remove(t, filepath.Join(h.states(), "anothers"))
	wantOnlyLoopback(t, drop)
	if got, want := keep.interfaces(t), []string{"lo", "eth0"}; !slices.Equal(got, want) {
		t.Errorf("interfaces of the container to keep = %q, want %q", got, want)
	}
	// Without its state the namespace of a container is not known, and with it goes its interface.
	for _, c := range []container{corrupt, unknown} {
		c.ip(t, "link", "del", "eth0")
	}
	if after := h.left(t); !slices.Equal(after, before) {
		t.Errorf("after GC the host has %q, want %q", after, before)
	}
	h.must(t, container{}, "", "GC", h.conf(map[string]any{"cni.dev/valid-attachments": nil}))
	h.wantNothingLeft(t)
}

// A namespace that took over the path of another is not entered.
func TestGCSparesAnotherNamespace(t *testing.T) {
	h := newDualHost(t)
	c := newContainer(t, "c")
	h.add(t, c, "eth0", h.conf(nil))
	other := newContainer(t, "other")
	other.ip(t, "link", "add", "eth0", "type", "bridge")
	text, err := os.ReadFile(h.state("c"))
	if err != nil {
		t.Fatal(err)
	}
	moved := strings.Replace(string(text), c.netns, other.netns, 1)
	if err := os.WriteFile(h.state("c"), []byte(moved), 0o600); err != nil {
		t.Fatal(err)
	}
	h.must(t, container{}, "", "GC", h.conf(map[string]any{"cni.dev/valid-attachments": []string{}}))
	if got := other.interfaces(t); !slices.Contains(got, "eth0") {
		t.Errorf("interfaces of the other container = %q, want eth0 among them", got)
	}
}

func (h *host) state(id string) string { return filepath.Join(h.states(), "fabric:"+id+":eth0") }

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func wantOnlyLoopback(t *testing.T, c container) {
	t.Helper()
	if got := c.interfaces(t); !slices.Equal(got, []string{"lo"}) {
		t.Errorf("interfaces of %s = %q, want lo alone", c.id, got)
	}
}
