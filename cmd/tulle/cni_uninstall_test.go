//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// realPlugin puts the plugin itself where install looks for it.
func (d cniDirs) realPlugin(t *testing.T) {
	t.Helper()
	if err := os.Remove(d.plugin); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", d.plugin, cniProgram).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", cniProgram, err, out)
	}
}

func TestCNIUninstall(t *testing.T) {
	d := newCNIDirs(t)
	d.realPlugin(t)
	data := filepath.Join(filepath.Dir(d.plugin), "data")
	conf, state := filepath.Join(d.conf, "10-tulle.conflist"), filepath.Join(data, "flannel", "tulle:4f2a:eth0")
	address := filepath.Join(data, "networks", "tulle", "10.5.7.2")
	for _, path := range []string{filepath.Join(d.conf, "99-other.conf"), state, address} {
		d.write(t, path, "")
	}
	d.delegate(t, "bridge", "1.0.0", "1.1.0")
	d.write(t, filepath.Join(data, "networks", "tulle", "last_reserved_ip.0"), "10.5.7.2")
	const removed = "net.d/10-tulle.conflist removed\nbin/tulle removed\n"
	for _, step := range []struct {
		name   string
		before func()
		args   []string
		code   int
		says   string
	}{
		{"attached", func() { d.install(t, "--run-dir", "/r", "--cni-version", "1.1.0") }, nil, exitFailed, "4f2a (eth0 on network tulle)"},
		{"changed", func() { os.Remove(state); d.write(t, conf, "{}") }, nil, exitFailed, "10-tulle.conflist was changed by hand: --force"},
		{"forced", func() {}, []string{"--force"}, exitFailed, removed + "tulle: data/networks/tulle is kept: containers that were never detached hold 10.5.7.2;"},
		{"installed", func() { os.Remove(address); d.install(t, "--run-dir", "/r", "--cni-version", "1.1.0") }, nil, exitOK, removed},
		{"again", func() {}, nil, exitOK, "net.d/10-tulle.conflist is not there\nbin/tulle is not there\n"},
		{"not Tulle's", func() { d.write(t, filepath.Join(d.bin, "flannel"), "flannel's") }, []string{"--as", "flannel", "--force"}, exitFailed, "bin/flannel is not Tulle's plugin"},
		{"as flannel", func() { d.install(t); d.install(t, "--as", "flannel") }, []string{"--as", "flannel"}, exitOK, "bin/flannel removed\n"},
		{"both", func() {}, nil, exitOK, removed},
		{"name", func() {}, []string{"--as", "calico"}, exitUsage, "tulle or flannel"},
	} {
		step.before()
		args := append([]string{"--data-dir", data}, step.args...)
		if code, says := d.cni(t, "uninstall", args...); code != step.code || !strings.Contains(says, step.says) {
			t.Errorf("%s: exit code %d, says %q; want code %d and %q", step.name, code, says, step.code, step.says)
		}
	}
	for dir, want := range map[string]string{d.bin: "bridge", d.conf: "99-other.conf"} {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 || entries[0].Name() != want {
			t.Errorf("%s holds %v, %v; want %s alone", dir, entries, err, want)
		}
	}
	if _, err := os.Stat(data); err == nil {
		t.Errorf("%s is still there", data)
	}
}
