//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sampleConflist = `{
  "cniVersion": "1.0.0",
  "name": "tulle",
  "plugins": [
    {
      "type": "tulle",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
`

// cniDirs is a host's directories for CNI, and a plugin to install.
type cniDirs struct{ plugin, bin, conf string }

func newCNIDirs(t *testing.T) cniDirs {
	t.Helper()
	dir := t.TempDir()
	d := cniDirs{filepath.Join(dir, "tulle-cni"), filepath.Join(dir, "bin"), filepath.Join(dir, "net.d")}
	d.write(t, d.plugin, "program")
	return d
}

func (d cniDirs) write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (d cniDirs) data() string { return filepath.Join(filepath.Dir(d.plugin), "data") }

// cni returns what the command says, with the directories' parent left out.
func (d cniDirs) cni(t *testing.T, command string, args ...string) (code int, says string) {
	t.Helper()
	var output bytes.Buffer
	args = append([]string{"cni", command, "--bin-dir", d.bin, "--conf-dir", d.conf, "--data-dir", d.data()}, args...)
	code = run(t.Context(), args, &output, &output)
	return code, strings.ReplaceAll(output.String(), filepath.Dir(d.plugin)+"/", "")
}

func (d cniDirs) install(t *testing.T, args ...string) string {
	t.Helper()
	code, says := d.cni(t, "install", append([]string{"--plugin", d.plugin}, args...)...)
	if code != exitOK {
		t.Fatalf("tulle cni install %q: exit code %d\n%s", args, code, says)
	}
	return says
}

// delegate puts a plugin in place that knows these versions.
func (d cniDirs) delegate(t *testing.T, name string, versions ...string) {
	t.Helper()
	answer, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "supportedVersions": versions})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.bin, name)
	d.write(t, path, "#!/bin/sh\n[ $CNI_COMMAND = VERSION ] && echo '"+string(answer)+"'\n")
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func (d cniDirs) want(t *testing.T, path, text string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if diff := cmp.Diff(text, string(got)); err != nil || diff != "" {
		t.Errorf("%s: %v, differs (-want +got):\n%s", path, err, diff)
	}
}

func TestCNIInstall(t *testing.T) {
	d := newCNIDirs(t)
	conf := filepath.Join(d.conf, "10-tulle.conflist")
	const lacks = "bin lacks bridge, host-local, portmap, loopback: install the CNI project's plugins there (Debian's containernetworking-plugins puts them into /usr/lib/cni)\n"
	const wins = "runtimes use 10-tulle.conflist, the first in net.d\n"
	for _, step := range []struct {
		name   string
		before func()
		args   []string
		says   string
		conf   string
	}{
		{"first", func() {}, nil, "bin/tulle written\nnet.d/10-tulle.conflist written\n" + lacks + wins, sampleConflist},
		{"again", func() {}, nil, "bin/tulle is up to date\nnet.d/10-tulle.conflist is up to date\n" + lacks + wins, sampleConflist},
		{"upgrade", func() { d.write(t, d.plugin, "newer"); d.write(t, conf, "{}") }, nil,
			"bin/tulle written\nnet.d/10-tulle.conflist is kept, since it differs from the sample: --force replaces it\n" + lacks + wins, "{}"},
		{"force", func() {}, []string{"--force"}, "bin/tulle is up to date\nnet.d/10-tulle.conflist written\n" + lacks + wins, sampleConflist},
		{"other directories of tulled", func() {}, []string{"--force", "--run-dir", "/r", "--subnet-file", "/s"},
			"bin/tulle is up to date\nnet.d/10-tulle.conflist written\n" + lacks + wins,
			strings.Replace(sampleConflist, `"type": "tulle",`, "\"type\": \"tulle\",\n      \"subnetFile\": \"/s\",\n      \"runDir\": \"/r\",", 1)},
		{"beside others", func() {
			for _, name := range []string{"00-readme.txt", "05-other.conf", "99-last.conflist"} {
				d.write(t, filepath.Join(d.conf, name), "{}")
			}
			for _, name := range []string{"bridge", "host-local", "loopback", "portmap"} {
				d.delegate(t, name, "0.4.0", "1.0.0", "1.1.0")
			}
		}, []string{"--force", "--cni-version", "1.1.0"},
			"bin/tulle is up to date\nnet.d/10-tulle.conflist written\n" +
				"runtimes use 05-other.conf, which sorts before 10-tulle.conflist in net.d: remove it, or install with --conf and a name that sorts before it\n",
			strings.Replace(sampleConflist, "1.0.0", "1.1.0", 1)},
		{"beside a name with a line in it", func() { d.write(t, filepath.Join(d.conf, "00-x\nrm -r.conf"), "{}") }, []string{"--cni-version", "1.1.0"},
			"bin/tulle is up to date\nnet.d/10-tulle.conflist is up to date\n" +
				`runtimes use "00-x\nrm -r.conf", which sorts before 10-tulle.conflist in net.d: remove it, or install with --conf and a name that sorts before it` + "\n",
			strings.Replace(sampleConflist, "1.0.0", "1.1.0", 1)},
		{"as flannel", func() {}, []string{"--as", "flannel"}, "bin/flannel written\n", strings.Replace(sampleConflist, "1.0.0", "1.1.0", 1)},
	} {
		step.before()
		if diff := cmp.Diff(step.says, d.install(t, step.args...)); diff != "" {
			t.Errorf("%s: output differs (-want +got):\n%s", step.name, diff)
		}
		d.want(t, conf, step.conf)
	}
	for _, name := range []string{"tulle", "flannel"} {
		d.want(t, filepath.Join(d.bin, name), "newer")
		if info, err := os.Stat(filepath.Join(d.bin, name)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("plugin %v, %v; want mode 755", info, err)
		}
	}
}

func TestCNIInstallRefuses(t *testing.T) {
	d := newCNIDirs(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(d.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(d.bin, "tulle")); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		says string
	}{
		"name":       {[]string{"--as", "calico"}, "tulle or flannel"},
		"version":    {[]string{"--cni-version", "2"}, "0.3.1, 0.4.0, 1.0.0, 1.1.0"},
		"conf":       {[]string{"--conf", "../x.conflist"}, "must be a file name"},
		"extension":  {[]string{"--conf", "10-tulle"}, "ends in .conflist"},
		"no plugin":  {[]string{"--plugin", "/nowhere"}, "--plugin"},
		"own folder": {[]string{"--bin-dir", d.bin}, "where tulle is this program"},
	} {
		var stdout, stderr bytes.Buffer
		args := append([]string{"cni", "install", "--plugin", d.plugin, "--bin-dir", filepath.Join(d.bin, "x"), "--conf-dir", d.conf}, tt.args...)
		if code := run(t.Context(), args, &stdout, &stderr); code != exitUsage || !strings.Contains(stderr.String(), tt.says) {
			t.Errorf("%s: exit code %d, says %q; want code %d and %q", name, code, &stderr, exitUsage, tt.says)
		}
	}
}

// The version of the configuration is one that its plugins know.
func TestCNIInstallAsksPlugins(t *testing.T) {
	for name, tt := range map[string]struct {
		hostLocal []string // what this one knows; the others know all
		args      []string
		version   string // of the configuration
		refusal   string
	}{
		"newest plugins":         {[]string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}, nil, "1.0.0", ""},
		"newest version":         {[]string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}, []string{"--cni-version", "1.1.0"}, "1.1.0", ""},
		"Debian's, by default":   {[]string{"0.1.0", "0.3.1", "0.4.0", "1.0.0"}, nil, "1.0.0", ""},
		"Debian's, asked for":    {[]string{"0.1.0", "0.3.1", "0.4.0", "1.0.0"}, []string{"--cni-version", "1.1.0"}, "", "--cni-version is 1.1.0, which bin/host-local does not know (it knows 0.1.0, 0.3.1, 0.4.0, 1.0.0): choose --cni-version 1.0.0, or"},
		"old plugin, by default": {[]string{"0.1.0", "0.2.0", "0.3.1", "0.4.0"}, nil, "0.4.0", ""},
		"only newer":             {[]string{"1.1.0"}, nil, "1.1.0", ""},
		"nothing in common":      {[]string{"0.1.0"}, nil, "", "the plugins in bin (bridge, host-local, portmap) have no CNI version in common"},
		"none":                   {nil, nil, "", "ask bin/host-local which CNI versions it knows: it names none"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newCNIDirs(t)
			for _, name := range []string{"bridge", "portmap", "loopback"} {
				d.delegate(t, name, "0.3.1", "0.4.0", "1.0.0", "1.1.0")
			}
			d.delegate(t, "host-local", tt.hostLocal...)
			code, says := d.cni(t, "install", append([]string{"--plugin", d.plugin}, tt.args...)...)
			if tt.refusal == "" {
				d.want(t, filepath.Join(d.conf, "10-tulle.conflist"), strings.Replace(sampleConflist, "1.0.0", tt.version, 1))
				return
			}
			if code == exitOK || !strings.Contains(says, tt.refusal) {
				t.Errorf("exit code %d, says %q; want a refusal with %q", code, says, tt.refusal)
			}
			if _, err := os.Stat(filepath.Join(d.bin, "tulle")); err == nil {
				t.Error("the plugin is installed in spite of the refusal")
			}
		})
	}
}

// Nothing is installed beside another allocator of the lease, and the refusal says what helps.
func TestCNIInstallBesideAnotherHolder(t *testing.T) {
	const flannels = `{"name":"cbr0","plugins":[{"type":"flannel"}]}`
	for name, tt := range map[string]struct {
		file, text string
		args       []string
		refusal    string // empty: none
	}{
		"flannel's network":     {"net.d/10-flannel.conflist", flannels, nil, "CNI network cbr0 holds it by net.d/10-flannel.conflist, and only one"},
		"its advice":            {"net.d/10-flannel.conflist", flannels, nil, "tulle cni install --as flannel --bin-dir bin --data-dir data serves that network"},
		"as flannel":            {"net.d/10-flannel.conflist", flannels, []string{"--as", "flannel"}, ""},
		"another name":          {"net.d/99-again.conflist", strings.Replace(sampleConflist, `"name": "tulle"`, `"name": "again"`, 1), nil, "stop its containers, and remove the file"},
		"the same name":         {"net.d/99-again.conflist", sampleConflist, nil, ""},
		"its own":               {"net.d/10-tulle.conflist", strings.Replace(sampleConflist, `"name": "tulle"`, `"name": "mine"`, 1), nil, ""},
		"its own, replaced":     {"net.d/10-tulle.conflist", strings.Replace(sampleConflist, `"name": "tulle"`, `"name": "mine"`, 1), []string{"--force"}, "CNI network mine holds it"},
		"containers of cbr0":    {"data/networks/cbr0/10.5.7.2", "c eth0", nil, "containers of CNI network cbr0 hold 10.5.7.2"},
		"containers of its own": {"data/networks/tulle/10.5.7.2", "c eth0", nil, ""},
		"of other addresses":    {"data/networks/podman/10.88.0.2", "c eth0", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newCNIDirs(t)
			env := filepath.Join(filepath.Dir(d.plugin), "subnet.env")
			d.write(t, env, "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n")
			d.write(t, filepath.Join(filepath.Dir(d.plugin), tt.file), tt.text)
			code, says := d.cni(t, "install", append([]string{"--plugin", d.plugin, "--subnet-file", env}, tt.args...)...)
			if (code == exitOK) != (tt.refusal == "") || !strings.Contains(says, tt.refusal) {
				t.Errorf("exit code %d, says %q; want a refusal with %q", code, says, tt.refusal)
			}
			if _, err := os.Stat(d.bin); tt.refusal != "" && err == nil {
				t.Error("something is installed in spite of the refusal")
			}
		})
	}
}

// What cannot be replaced at one of the two places is found before anything is written to the other.
func TestCNIInstallIsWholeOrNot(t *testing.T) {
	for name, tt := range map[string]struct {
		put func(path string) error
		why string
	}{
		"pipe":   {func(path string) error { return syscall.Mkfifo(path, 0o600) }, "is a named pipe and no regular file"},
		"folder": {func(path string) error { return os.Mkdir(path, 0o755) }, "is a directory and no regular file"},
		"sparse": {func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 3<<30))
		}, "has 3221225472 bytes, more than"},
		"below a file": {func(path string) error {
			return errors.Join(os.Remove(filepath.Dir(path)), os.WriteFile(filepath.Dir(path), nil, 0o600))
		}, "not a directory"},
	} {
		for _, at := range []string{"net.d/10-tulle.conflist", "bin/tulle"} {
			t.Run(name+" at "+at, func(t *testing.T) {
				d := newCNIDirs(t)
				path := filepath.Join(filepath.Dir(d.plugin), at)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), tt.put(path)); err != nil {
					t.Fatal(err)
				}
				code, says := d.cni(t, "install", "--plugin", d.plugin, "--force")
				if code != exitFailed || !strings.Contains(says, tt.why) {
					t.Errorf("exit code %d, says %q; want a refusal with %q", code, says, tt.why)
				}
				for _, other := range []string{filepath.Join(d.bin, "tulle"), filepath.Join(d.conf, "10-tulle.conflist")} {
					if _, err := os.Stat(other); other != path && err == nil {
						t.Errorf("%s is written in spite of the refusal", other)
					}
				}
			})
		}
	}
}
