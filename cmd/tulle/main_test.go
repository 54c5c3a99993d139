package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExitCodes(t *testing.T) {
	// Before a lab is built, its programs must exist; this is one that does.
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"help", []string{"help"}, exitOK, ""},
		{"completion", []string{"completion", "bash"}, exitOK, ""},
		{"unknown command", []string{"frobnicate"}, exitUsage, `"frobnicate"`},
		{"unknown subcommand", []string{"lab", "frobnicate"}, exitUsage, `"frobnicate"`},
		{"misspelt command", []string{"statsu"}, exitUsage, `unknown command "statsu" for "tulle": did you mean tulle status?`},
		{"misspelt subcommand", []string{"leases", "relase"}, exitUsage, "did you mean tulle leases release?"},
		{"misspelt part of the fast path", []string{"fast-path", "flow"}, exitUsage, "did you mean tulle fast-path flows?"},
		{"unknown flag of the fast path", []string{"fast-path", "flows", "--peer", "h2"}, exitUsage, "--peer"},
		{"fast path off for no time", []string{"fast-path", "off", "--for", "0s"}, exitUsage, "--for is 0s"},
		{"fast path off for ever", []string{"fast-path", "off", "--for", "1000h"}, exitUsage, "--fast-path=off"},
		{"fast path without tulled", []string{"fast-path", "flush", "--run-dir", "/nowhere"}, exitFailed, "no tulled answers"},
		{"version", []string{"version"}, exitOK, ""},
		{"zero hosts", []string{"lab", "run", "--hosts", "0", "--tulled", program}, exitUsage, "--hosts is 0"},
		{"unknown flag", []string{"lab", "run", "--frobnicate"}, exitUsage, "--frobnicate"},
		{"surplus argument", []string{"lab", "run", "frobnicate"}, exitUsage, `"frobnicate"`},
		{"bad number", []string{"lab", "run", "--hosts", "many"}, exitUsage, "--hosts"},
		{"bad family", []string{"lab", "run", "--family", "ipv5"}, exitUsage, "ipv4, ipv6 or dual"},
		{"bad backend", []string{"lab", "run", "--backend", "udp"}, exitUsage, "vxlan, ipip, host-gw or alloc"},
		{"bad fast path", []string{"lab", "up", "--fast-path", "maybe", "--tulled", program}, exitUsage, "auto, on or off"},
		{"bad probe", []string{"lab", "up", "--probe", "maybe", "--tulled", program}, exitUsage, "on or off"},
		{"ipip over IPv6", []string{"lab", "run", "--backend", "ipip"}, exitUsage, "--family ipv4"},
		{"flag of another backend", []string{"lab", "run", "--backend", "host-gw", "--vni", "7"}, exitUsage, "only vxlan"},
		{"host-gw across segments", []string{"lab", "run", "--backend", "host-gw", "--segments", "2"}, exitUsage, "--segments 1"},
		{"network of the other family", []string{"lab", "run", "--network", "fd00::/48"}, exitUsage, "ipv4 network"},
		{"no tulled", []string{"lab", "run", "--tulled", "/nowhere/tulled"}, exitUsage, "--tulled"},
		{"no hosts", []string{"lab", "run", "--hosts=-1", "--tulled", program}, exitUsage, "--hosts is -1"},
		{"no command", []string{"lab", "exec", "h1", "--"}, exitUsage, "tulle lab exec h1 --"},
		{"no lab", []string{"lab", "status", "--name", "test-no-such-lab"}, exitFailed, "tulle lab up"},
		{"nothing to remove", []string{"lab", "down", "--name", "test-no-such-lab"}, exitOK, ""},
		{"docker before a lease", []string{"docker", "configure", "--subnet-file", "/nowhere"}, exitFailed, "tulled has no lease yet"},
		{"docker network without a name", []string{"docker", "network", "create"}, exitUsage, "1 arg"},
		{"no docker", []string{"docker", "network", "ls", "--docker-socket", "/nowhere"}, exitFailed, "no docker answers on /nowhere"},
		{"bad path", []string{"bench", "path", "--paths", "slow", "--tulled", program}, exitUsage, `--paths has "slow"`},
		{"path twice", []string{"bench", "path", "--paths", "bare,bare", "--tulled", program}, exitUsage, `"bare" twice`},
		{"bad figure", []string{"bench", "path", "--figures", "speed", "--tulled", program}, exitUsage, "tcp-rr, udp-rr"},
		{"bad offloads", []string{"bench", "path", "--offloads", "some"}, exitUsage, "on or off"},
		{"no flanneld", []string{"bench", "path", "--paths", "flannel", "--tulled", program}, exitUsage, "--flanneld"},
		{"flannel over IPv6", []string{"bench", "path", "--family", "ipv6", "--flanneld", program, "--tulled", program}, exitUsage, "--family ipv4"},
		{"target without a name", []string{"bench", "path", "--to", "192.0.2.1"}, exitUsage, "NAME=ADDRESS"},
		{"target twice", []string{"bench", "path", "--to", "a=192.0.2.1", "--to", "a=192.0.2.2"}, exitUsage, `--to has "a" twice`},
		{"target and a lab", []string{"bench", "path", "--to", "a=192.0.2.1", "--rules", "200"}, exitUsage, "--rules is for a lab"},
		{"page at no address", []string{"web", "--listen", "8474"}, exitUsage, "ADDRESS:PORT"},
		{"page at no port", []string{"web", "--listen", "127.0.0.1:http"}, exitUsage, `"http"`},
		{"page at an address of another host", []string{"web", "--listen", "192.0.2.1:8474"}, exitFailed, "--listen 192.0.2.1:8474"},
		{"bad log level", []string{"etcd", "--data-dir", filepath.Join(t.TempDir(), "etcd"), "--log-level", "loud"}, exitUsage, `"loud"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), test.args, &stdout, &stderr); code != test.code {
				t.Errorf("tulle %s: exit code %d, want %d\n%s", strings.Join(test.args, " "), code, test.code, &stderr)
			}
			if !strings.Contains(stderr.String(), test.says) {
				t.Errorf("tulle %s: stderr %q does not say %s", strings.Join(test.args, " "), &stderr, test.says)
			}
		})
	}
}
