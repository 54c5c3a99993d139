package flannel

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What lies where the subnet file belongs is replaced, and a link's target is left alone; a reader may come through a link.
func TestSubnetFileInTheWay(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target")
	env := Env{MTU: 1450}
	env.Network.V4, env.Subnets.V4 = netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("10.5.34.0/24")
	for kind, put := range map[string]func(path string) error{
		"pipe":   func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"link":   func(path string) error { return os.Symlink(target, path) },
		"device": func(path string) error { return os.Symlink("/dev/zero", path) },
		"sparse": func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 3<<30)) },
	} {
		if err := errors.Join(os.RemoveAll(target), os.WriteFile(target, env.text(), 0o400)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "subnet.env")
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		got, err := ReadEnv(path)
		if kind == "link" && (err != nil || got.Subnets != env.Subnets) {
			t.Errorf("%s: read %v, %v, want what it leads to", kind, got, err)
		}
		if kind != "link" && (err == nil || !strings.Contains(err.Error(), path)) {
			t.Errorf("%s: read %v, %v, want an error that names the path", kind, got, err)
		}
		if changed, err := env.WriteFile(path); !changed || err != nil {
			t.Errorf("%s: written %t, %v, want it written", kind, changed, err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode() != 0o644 {
			t.Errorf("%s: file %v, %v, want one with mode 644", kind, info.Mode(), err)
		}
		if info, err := os.Stat(target); err != nil || info.Mode() != 0o400 {
			t.Errorf("%s: target %v, %v, want it to keep its mode 400", kind, info.Mode(), err)
		}
	}
}
