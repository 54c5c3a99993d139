package holder

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"tulle/subnet"
)

func lease() subnet.Subnets {
	return subnet.Subnets{V4: netip.MustParsePrefix("10.5.1.0/24"), V6: netip.MustParsePrefix("fc00:5:0:1::/64")}
}

func bridgeWith(name string, addrs ...string) Bridge {
	b := Bridge{Name: name}
	for _, a := range addrs {
		b.Addrs = append(b.Addrs, netip.MustParsePrefix(a))
	}
	return b
}

// A host as its files describe it, and who is to have the lease.
func TestCheck(t *testing.T) {
	const (
		flannels = `{"name":"cbr0","plugins":[{"type":"flannel","delegate":{"isDefaultGateway":true}},{"type":"portmap"}]}`
		ours     = `{"name":"tulle","plugins":[{"type":"tulle"}]}`
	)
	cni, docker := Owner{Bridges: []string{"cni0"}, Network: "tulle"}, Owner{Bridges: []string{"docker0"}}
	for name, tt := range map[string]struct {
		files   map[string]string
		bridges []Bridge
		own     Owner
		want    []string // one for each that is refused; none: nobody is
	}{
		"nobody":                 {nil, nil, cni, nil},
		"the same again":         {map[string]string{"conf/10-tulle.conflist": ours, "networks/tulle/10.5.1.2": ""}, []Bridge{bridgeWith("cni0", "10.5.1.1/24", "fc00:5:0:1::1/64")}, cni, nil},
		"docker0 again":          {nil, []Bridge{bridgeWith("docker0", "10.5.1.1/24")}, docker, nil},
		"docker0 with its own":   {nil, []Bridge{bridgeWith("docker0", "172.17.0.1/16")}, cni, nil},
		"docker0 has it":         {nil, []Bridge{bridgeWith("docker0", "10.5.1.1/24")}, cni, []string{"bridge docker0 holds 10.5.1.1/24, and only one may hand out addresses of this host's subnet 10.5.1.0/24 and fc00:5:0:1::/64: to take"}},
		"docker0 has the IPv6":   {nil, []Bridge{bridgeWith("docker0", "172.17.0.1/16", "fc00:5:0:1::1/64")}, cni, []string{"tulle docker unconfigure --restart"}},
		"a Docker network":       {nil, []Bridge{bridgeWith("br-0123", "10.5.1.1/24")}, cni, []string{"docker network rm"}},
		"a part of it":           {nil, []Bridge{bridgeWith("own0", "10.5.1.129/25")}, cni, []string{"ip link del own0"}},
		"flannel's, bare":        {map[string]string{"conf/10-flannel.conflist": flannels}, nil, cni, []string{"tulle cni install --as flannel"}},
		"flannel's, in use":      {map[string]string{"conf/10-flannel.conflist": flannels, "networks/cbr0/10.5.1.2": ""}, []Bridge{bridgeWith("cni0", "10.5.1.1/24")}, cni, []string{"CNI network cbr0 holds it by conf/10-flannel.conflist"}},
		"flannel's containers":   {map[string]string{"networks/cbr0/10.5.1.2": "", "networks/cbr0/lock": ""}, nil, cni, []string{"containers of CNI network cbr0 hold 10.5.1.2 (networks/cbr0)"}},
		"many containers":        {map[string]string{"networks/x/10.5.1.2": "", "networks/x/10.5.1.3": "", "networks/x/10.5.1.4": "", "networks/x/fc00:5:0:1::2": ""}, nil, cni, []string{"10.5.1.2, 10.5.1.3, 10.5.1.4 and 1 more"}},
		"of another network":     {map[string]string{"networks/other/10.88.0.2": "", "conf/87-podman.conflist": `{"name":"podman","plugins":[{"type":"bridge","bridge":"cni-podman0","ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/16"}]]}}]}`}, nil, cni, nil},
		"a bridge configuration": {map[string]string{"conf/05-net.conf": `{"name":"net","type":"bridge","ipam":{"type":"host-local","subnet":"10.5.1.0/24"}}`}, nil, cni, []string{"CNI network net holds it by conf/05-net.conf"}},
		"no configurations":      {map[string]string{"conf/a.conflist": "{", "conf/b.txt": flannels, "conf/c.conf": "{}"}, nil, cni, nil},
		"CNI, for Docker":        {map[string]string{"conf/10-tulle.conflist": ours}, []Bridge{bridgeWith("cni0", "10.5.1.1/24")}, docker, []string{"tulle cni uninstall --conf-dir conf --conf 10-tulle.conflist", "ip link del cni0"}},
		"a bridge's name is a word": {nil, []Bridge{bridgeWith("$(reboot)", "10.5.1.1/24"), bridgeWith("br-;id", "10.5.1.1/24")}, cni, []string{
			"bridge $(reboot) holds 10.5.1.1/24, and only one may hand out addresses of this host's subnet 10.5.1.0/24 and fc00:5:0:1::/64: once what hangs on it has ended: ip link del '$(reboot)'",
			"any other: ip link del 'br-;id'"}},
		"a folder's name is a word": {map[string]string{"networks/a\n$(id)'/10.5.1.2": ""}, nil, cni, []string{
			`containers of CNI network "a\n$(id)'" hold 10.5.1.2 ("networks/a\n$(id)'"), and only one may hand out addresses of this host's subnet 10.5.1.0/24 and fc00:5:0:1::/64: stop them first; if none is left, rm -r -- $'networks/a\n$(id)\''`}},
		"a file's name is a word":      {map[string]string{"conf/$(id) 1.conflist": ours}, nil, docker, []string{"tulle cni uninstall --conf-dir conf --conf '$(id) 1.conflist'"}},
		"a network's name is one line": {map[string]string{"conf/1.conflist": strings.Replace(flannels, "cbr0", `c\nrm`, 1)}, nil, cni, []string{`CNI network "c\nrm" holds it by conf/1.conflist`}},
		"directories of its own": {map[string]string{"conf/10-flannel.conflist": flannels, "conf/9.conflist": ours}, nil, Owner{Network: "mine", Options: []string{"--bin-dir", "/opt/my bin"}}, []string{
			"tulle cni install --as flannel --bin-dir '/opt/my bin' serves that network",
			"tulle cni uninstall --conf-dir conf --conf 9.conflist --bin-dir '/opt/my bin'"}},
		"flannel's, for Docker": {map[string]string{"conf/10-flannel.conflist": flannels}, nil, docker, []string{"stop its containers, and remove the file"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			for path, text := range tt.files {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			confs, err := ReadConfs("conf")
			if err != nil {
				t.Fatal(err)
			}
			networks, err := ReadNetworks("networks")
			if err != nil {
				t.Fatal(err)
			}
			err = Host{Bridges: tt.bridges, Networks: networks, Confs: confs}.Check(lease(), tt.own)
			var lines []string
			if err != nil {
				lines = strings.Split(err.Error(), "\n")
			}
			if len(lines) != len(tt.want) {
				t.Fatalf("refused with %q, want %d lines: %q", lines, len(tt.want), tt.want)
			}
			for i, want := range tt.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("refused with %q, want it to say %q", lines[i], want)
				}
			}
		})
	}
}

func TestGateway(t *testing.T) {
	h := Host{Bridges: []Bridge{bridgeWith("cni0", "10.5.1.1/24"), bridgeWith("docker0", "172.17.0.1/16"), bridgeWith("own", "10.5.1.9/24")}}
	if err := h.Gateway(lease(), "cni0"); err != nil {
		t.Errorf("beside bridges with other addresses: %v", err)
	}
	h.Bridges[1].Addrs = append(h.Bridges[1].Addrs, netip.MustParsePrefix("fc00:5:0:1::1/64"))
	if err := h.Gateway(lease(), "cni0"); err == nil || !strings.Contains(err.Error(), "bridge docker0 has fc00:5:0:1::1") {
		t.Errorf("beside docker0 with the gateway: %v", err)
	}
}

// A network's folder may be a link; what leads to no folder is no network.
func TestNetworksBehindLinks(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.WriteFile(filepath.Join(elsewhere, "10.5.1.2"), nil, 0o600), os.Symlink(elsewhere, filepath.Join(dir, "cbr0")),
		os.Symlink(filepath.Join(elsewhere, "10.5.1.2"), filepath.Join(dir, "file")), os.Symlink("nowhere", filepath.Join(dir, "dangling")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadNetworks(dir)
	want := []Network{{Name: "cbr0", Dir: filepath.Join(dir, "cbr0"), Addrs: []netip.Addr{netip.MustParseAddr("10.5.1.2")}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("networks %v, %v; want %v", got, err, want)
	}
}
