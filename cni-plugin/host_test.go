//go:build linux

package cniplugin_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	result "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"tulle/internal/netns"
	"tulle/internal/netns/netnstest"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// host is a host as its container runtime sees it.
type host struct {
	ns         *netns.Namespace
	dir        string // the plugins' files
	plugins    string // directory of the plugins
	subnetFile string
	runDir     string
}

// bareHost is a host without a daemon, but with its subnet file.
func bareHost(t testing.TB, env flannel.Env) *host {
	t.Helper()
	h := &host{ns: netnstest.New(t), dir: t.TempDir(), plugins: built().cni}
	h.subnetFile, h.runDir = filepath.Join(h.dir, "subnet.env"), filepath.Join(h.dir, "run")
	h.lease(t, env)
	return h
}

// lease writes the subnet file.
func (h *host) lease(t testing.TB, env flannel.Env) {
	t.Helper()
	if _, err := env.WriteFile(h.subnetFile); err != nil {
		t.Fatal(err)
	}
}

func envOf(v4, v6 string) flannel.Env {
	return flannel.Env{
		Network: ip.Dual[netip.Prefix]{V4: netip.MustParsePrefix("10.50.0.0/16"), V6: netip.MustParsePrefix("fc00:50::/48")},
		Subnets: subnet.Subnets{V4: netip.MustParsePrefix(v4), V6: netip.MustParsePrefix(v6)},
		MTU:     1450,
		IPMasq:  true,
	}
}

// conf is a network configuration that keeps to the host's directory, with members added or replaced.
func (h *host) conf(members map[string]any) []byte {
	c := map[string]any{
		"cniVersion": "1.1.0", "name": "fabric", "type": "tulle",
		"subnetFile": h.subnetFile, "runDir": h.runDir, "dataDir": h.states(),
		"delegate": map[string]any{"hairpinMode": true, "isDefaultGateway": true},
		"ipam":     map[string]any{"dataDir": h.addresses()},
	}
	maps.Copy(c, members)
	text, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return text
}

func (h *host) addresses() string { return filepath.Join(h.dir, "ipam") }

func (h *host) states() string { return filepath.Join(h.dir, "state") }

// container is a network namespace that has a path, as CNI wants it.
type container struct{ id, netns string }

func newContainer(t testing.TB, id string) container {
	t.Helper()
	ns := netnstest.New(t)
	path := filepath.Join(t.TempDir(), id)
	netnstest.Require(t, ns.Pin(path))
	t.Cleanup(func() { netns.Unpin(path) })
	return container{id, path}
}

// do runs fn in the container.
func (c container) do(t testing.TB, fn func() error) {
	t.Helper()
	ns, err := netns.Open(c.netns)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Do(fn); err != nil {
		t.Fatal(err)
	}
}

// ip runs ip(8) in the container.
func (c container) ip(t testing.TB, args ...string) {
	t.Helper()
	c.do(t, func() error { return runIP(args) })
}

// ip runs ip(8) on the host.
func (h *host) ip(t testing.TB, args ...string) {
	t.Helper()
	if err := h.ns.Do(func() error { return runIP(args) }); err != nil {
		t.Fatal(err)
	}
}

func runIP(args []string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// command prepares a run of the plugin by a runtime.
func (h *host) command(c container, ifname, command string, conf []byte, env ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(h.plugins, "tulle"))
	cmd.Stdin = bytes.NewReader(conf)
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "GORACE=" + os.Getenv("GORACE"), programsEnv + "=" + os.Getenv(programsEnv),
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + c.id, "CNI_NETNS=" + c.netns, "CNI_IFNAME=" + ifname, "CNI_PATH=" + h.plugins,
	}, env...)
	return cmd
}

// cni runs the plugin. An error that the plugin reports is a *types.Error.
func (h *host) cni(c container, ifname, command string, conf []byte, env ...string) (stdout []byte, stderr string, err error) {
	cmd := h.command(c, ifname, command, conf, env...)
	var out, remarks bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &remarks
	err = h.ns.Do(cmd.Run)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		reported := new(types.Error)
		if json.Unmarshal(out.Bytes(), reported) == nil {
			err = reported
		}
	}
	return out.Bytes(), remarks.String(), err
}

// must runs the plugin and ends the test if it fails.
func (h *host) must(t testing.TB, c container, ifname, command string, conf []byte) []byte {
	t.Helper()
	out, stderr, err := h.cni(c, ifname, command, conf)
	if err != nil {
		t.Fatalf("%s of %s %s: %v\n%s", command, c.id, ifname, err, stderr)
	}
	return out
}

// refuses runs the plugin and wants an error with the code and the text.
func (h *host) refuses(t testing.TB, c container, command string, conf []byte, code uint, text string) {
	t.Helper()
	_, _, err := h.cni(c, "eth0", command, conf)
	var reported *types.Error
	if !errors.As(err, &reported) || reported.Code != code || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: error %v (%T), want code %d and %q", command, err, err, code, text)
	}
}

// add attaches a container and returns its addresses.
func (h *host) add(t testing.TB, c container, ifname string, conf []byte) ip.Dual[netip.Prefix] {
	t.Helper()
	res, err := create.CreateFromBytes(h.must(t, c, ifname, "ADD", conf))
	if err != nil {
		t.Fatal(err)
	}
	return addrsIn(t, res)
}

func addrsIn(t testing.TB, res types.Result) (addrs ip.Dual[netip.Prefix]) {
	t.Helper()
	current, err := result.NewResultFromResult(res)
	if err != nil {
		t.Fatal(err)
	}
	for _, config := range current.IPs {
		addr, _ := netip.AddrFromSlice(config.Address.IP)
		bits, _ := config.Address.Mask.Size()
		addrs.Set(ip.FamilyOf(addr.Unmap()), netip.PrefixFrom(addr.Unmap(), bits))
	}
	return addrs
}

// left lists what attachments leave on the host: veths, states and addresses.
func (h *host) left(t testing.TB) []string {
	t.Helper()
	var found []string
	if err := h.ns.Do(func() error {
		links, err := net.Interfaces()
		for _, l := range links {
			if strings.HasPrefix(l.Name, "veth") {
				found = append(found, "link "+l.Name)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(h.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name := entry.Name()
		lasting := name == "lock" || strings.HasPrefix(name, "last_reserved_ip.")
		if dir := filepath.Base(filepath.Dir(path)); (dir == "state" || dir == "fabric") && !lasting {
			found = append(found, "file "+name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(found)
	return found
}

// wantNothingLeft fails the test if anything is left of any attachment.
func (h *host) wantNothingLeft(t testing.TB) {
	t.Helper()
	if found := h.left(t); len(found) > 0 {
		t.Errorf("left over: %s", strings.Join(found, ", "))
	}
}

// interfaces lists the names of a container's interfaces.
func (c container) interfaces(t testing.TB) []string {
	t.Helper()
	var names []string
	c.do(t, func() error {
		links, err := net.Interfaces()
		for _, l := range links {
			names = append(names, l.Name)
		}
		return err
	})
	return names
}
