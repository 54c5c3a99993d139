package flannel

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"tulle/ip"
	"tulle/subnet"
)

// subnetsOf makes the subnets of a lease; "" stands for none.
func subnetsOf(t testing.TB, v4, v6 string) subnet.Subnets {
	t.Helper()
	var s subnet.Subnets
	for f, text := range map[ip.Family]string{ip.IPv4: v4, ip.IPv6: v6} {
		if text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		s.Set(f, p)
	}
	return s
}

func dualEnv(t testing.TB) (Env, string) {
	t.Helper()
	return Env{
			Network: subnetsOf(t, "10.50.0.0/16", "fc00:50::/48"),
			Subnets: subnetsOf(t, "10.50.58.0/24", "fc00:50:0:5d::/64"),
			MTU:     1450,
		}, `FLANNEL_NETWORK=10.50.0.0/16
FLANNEL_SUBNET=10.50.58.1/24
FLANNEL_IPV6_NETWORK=fc00:50::/48
FLANNEL_IPV6_SUBNET=fc00:50:0:5d::1/64
FLANNEL_MTU=1450
FLANNEL_IPMASQ=false
`
}

func TestEnvTexts(t *testing.T) {
	dual, dualText := dualEnv(t)
	for name, tt := range map[string]struct {
		env  Env
		text string
	}{
		"dual": {dual, dualText},
		"ipv4": {
			Env{Network: subnetsOf(t, "10.50.0.0/16", ""), Subnets: subnetsOf(t, "10.50.58.0/24", ""), MTU: 1500, IPMasq: true},
			"FLANNEL_NETWORK=10.50.0.0/16\nFLANNEL_SUBNET=10.50.58.1/24\nFLANNEL_MTU=1500\nFLANNEL_IPMASQ=true\n",
		},
		"ipv6": {
			Env{Network: subnetsOf(t, "", "fc00:50::/48"), Subnets: subnetsOf(t, "", "fc00:50:0:5d::/64"), MTU: 1430},
			"FLANNEL_IPV6_NETWORK=fc00:50::/48\nFLANNEL_IPV6_SUBNET=fc00:50:0:5d::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=false\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "run", "flannel", "subnet.env")
			if changed, err := tt.env.WriteFile(path); err != nil || !changed {
				t.Fatalf("WriteFile = %t, %v", changed, err)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(text) != tt.text {
				t.Errorf("wrote\n%swant\n%s", text, tt.text)
			}
			if got, err := ReadEnv(path); err != nil || !reflect.DeepEqual(got, tt.env) {
				t.Errorf("ReadEnv = %v, %v; want %v", got, err, tt.env)
			}
		})
	}
}

func TestEnvWriteFile(t *testing.T) {
	env, _ := dualEnv(t)
	dir := filepath.Join(t.TempDir(), "flannel")
	path := filepath.Join(dir, "subnet.env")
	write := func(want bool) fs.FileInfo {
		t.Helper()
		changed, err := env.WriteFile(path)
		if err != nil || changed != want {
			t.Fatalf("WriteFile = %t, %v; want %t", changed, err, want)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	first := write(true)
	if again := write(false); !os.SameFile(first, again) {
		t.Error("an unchanged file was replaced")
	}
	env.MTU = 1400
	changed := write(true)
	if os.SameFile(first, changed) {
		t.Error("a changed file was written in place, where readers can see a part of it")
	}
	if mode := changed.Mode().Perm(); mode != 0o644 {
		t.Errorf("file mode %o, want 644", mode)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("directory %v, %v; want mode 755", info, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("directory holds %v, %v; want the file only", entries, err)
	}
}

func TestEnvWriteFileFails(t *testing.T) {
	env, _ := dualEnv(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "subnet.env")
	if err := os.MkdirAll(filepath.Join(path, "occupied"), 0o755); err != nil {
		t.Fatal(err)
	}
	if changed, err := env.WriteFile(path); err == nil || changed || !strings.Contains(err.Error(), path) {
		t.Errorf("WriteFile over a directory = %t, %v; want an error that names %s", changed, err, path)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("directory holds %v, %v; want no temporary file", entries, err)
	}
}

func TestReadEnv(t *testing.T) {
	dual, dualText := dualEnv(t)
	lists := dual
	lists.Network = subnetsOf(t, "10.1.0.0/16", "fd00:1::/48")
	lists.More = []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("fd00::/48")}
	for name, tt := range map[string]struct {
		text string
		want Env
	}{
		"unknown lines": {"# by hand\n\nFLANNEL_SOMETHING=else\n  \n" + dualText, dual},
		"CRLF, no end":  {strings.ReplaceAll(strings.TrimSpace(dualText), "\n", "\r\n"), dual},
		"the last line": {"FLANNEL_MTU=9000\n" + dualText, dual},
		"lists": {strings.NewReplacer("FLANNEL_NETWORK=10.50.0.0/16", "FLANNEL_NETWORK=10.1.0.0/16,10.2.0.0/16,fd00::/48",
			"FLANNEL_IPV6_NETWORK=fc00:50::/48", "FLANNEL_IPV6_NETWORK=10.2.0.0/16, fd00:1::/48").Replace(dualText), lists},
	} {
		path := filepath.Join(t.TempDir(), "subnet.env")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadEnv(path); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: ReadEnv = %v, %v; want %v", name, got, err, tt.want)
		}
	}
}

func TestReadEnvRefuses(t *testing.T) {
	_, text := dualEnv(t)
	replace := func(old, with string) string { return strings.Replace(text, old, with, 1) }
	for name, tt := range map[string]struct{ text, reason string }{
		"empty":           {"", "FLANNEL_MTU is missing"},
		"no key":          {"FLANNEL_NETWORK\n", `line 1: "FLANNEL_NETWORK" is not KEY=VALUE`},
		"network":         {replace("10.50.0.0/16", "10.50.0.0"), `line 1: FLANNEL_NETWORK "10.50.0.0": "10.50.0.0" is not a prefix`},
		"network family":  {replace("10.50.0.0/16", "fc00::/16"), "line 1: FLANNEL_NETWORK \"fc00::/16\": want an ipv4 prefix"},
		"subnet":          {replace("10.50.58.1/24", "fc00::1/64"), `line 2: FLANNEL_SUBNET "fc00::1/64": want an ipv4 prefix`},
		"MTU":             {replace("1450", "large"), `line 5: FLANNEL_MTU "large": want a number of bytes`},
		"negative MTU":    {replace("1450", "-1"), "line 5"},
		"masquerade":      {replace("false", "yes"), `line 6: FLANNEL_IPMASQ "yes": want true or false`},
		"quotes":          {replace("1450", `"1450"`), "line 5"},
		"no subnet":       {replace("FLANNEL_SUBNET", "X"), "FLANNEL_SUBNET is missing"},
		"no network":      {replace("FLANNEL_IPV6_NETWORK", "X"), "FLANNEL_IPV6_NETWORK is missing"},
		"no family":       {"FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n", "FLANNEL_SUBNET is missing"},
		"no MTU":          {replace("FLANNEL_MTU", "X"), "FLANNEL_MTU is missing"},
		"half a file":     {text[:len(text)/2], "line 3"},
		"remedy is named": {"x", "restart tulled"},
	} {
		path := filepath.Join(t.TempDir(), "subnet.env")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadEnv(path); err == nil || !strings.Contains(err.Error(), tt.reason) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want it to say %q", name, err, tt.reason)
		}
	}
	if _, err := ReadEnv(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file gave %v, want fs.ErrNotExist", err)
	}
}

func FuzzReadEnv(f *testing.F) {
	_, text := dualEnv(f)
	f.Add(text)
	f.Add("FLANNEL_NETWORK=10.0.0.0/8,fc00::/8\nFLANNEL_SUBNET=0.0.0.0/0\nFLANNEL_MTU=1\nFLANNEL_IPMASQ=true")
	f.Add("=\n#\n\x00=1")
	f.Fuzz(func(t *testing.T, text string) {
		env, err := parseEnv([]byte(text))
		if err != nil {
			return
		}
		for _, family := range ip.Families() {
			p := env.Subnets.Of(family)
			if p.IsValid() && p == netip.PrefixFrom(p.Addr(), family.Bits()) {
				return // a single address has no other one for the bridge
			}
		}
		env.More = nil
		if again, err := parseEnv(env.text()); err != nil || !reflect.DeepEqual(again, env) {
			t.Errorf("%q: read %v, then %v, %v", text, env, again, err)
		}
	})
}
