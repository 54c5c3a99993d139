package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/subnet"
	"tulle/subnet/flannel"
)

func env(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, p := range pairs {
			if k, v, _ := strings.Cut(p, "="); k == name {
				return v, true
			}
		}
		return "", false
	}
}

func TestFlagsWinOverEnvironment(t *testing.T) {
	o, err := parse(
		[]string{"-iface", "eth1", "--iface=eth2", "-public-ip=192.0.2.1", "--healthz-port", "8081", "-log-level=debug"},
		env("TULLED_IFACE=eth9", "TULLED_IP_MASQ=true", "FLANNELD_IP_MASQ=false", "FLANNELD_ETCD_PREFIX=/flannel", "TULLED_ETCD_ENDPOINTS=http://a:1, http://b:2", "TULLED_NODE_ID="), nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"eth1", "eth2"}; !slices.Equal(o.uplink.Interfaces, want) {
		t.Errorf("interfaces %v, want %v", o.uplink.Interfaces, want)
	}
	if want := []string{"http://a:1", "http://b:2"}; !slices.Equal(o.endpointList(), want) {
		t.Errorf("endpoints %v, want %v", o.endpointList(), want)
	}
	if !o.ipMasq || o.etcd.Prefix != "/flannel" || o.healthPort != 8081 || o.logLevel != slog.LevelDebug ||
		o.uplink.Public.V4 != netip.MustParseAddr("192.0.2.1") || o.subnetFile != "/run/flannel/subnet.env" {
		t.Errorf("options %+v", o)
	}
}

// What nobody says is what flannel takes for granted.
func TestDefaultsAreFlannels(t *testing.T) {
	o, err := parse(nil, env(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"http://127.0.0.1:4001", "http://127.0.0.1:2379"}; !slices.Equal(o.endpointList(), want) {
		t.Errorf("endpoints %v, want %v", o.endpointList(), want)
	}
	if o.etcd.Prefix != flannel.DefaultPrefix || o.subnetFile != "/run/flannel/subnet.env" {
		t.Errorf("prefix %s, subnet file %s", o.etcd.Prefix, o.subnetFile)
	}
}

func TestFiltersAreOnUnlessSwitchedOff(t *testing.T) {
	for _, tt := range []struct {
		args       []string
		env        string
		peers, own bool
	}{
		{nil, "", true, true},
		{[]string{"--peer-filter=off"}, "", false, true},
		{nil, "TULLED_PEER_FILTER=off", false, true},
		{[]string{"--peer-filter", "on"}, "TULLED_PEER_FILTER=off", true, true},
		{[]string{"--source-check=off"}, "", true, false},
		{nil, "TULLED_SOURCE_CHECK=off", true, false},
		{[]string{"--source-check=on"}, "TULLED_SOURCE_CHECK=off", true, true},
	} {
		if o, err := parse(tt.args, env(tt.env), nil); err != nil || o.peerFilter != tt.peers || o.sourceCheck != tt.own {
			t.Errorf("%q, %q: %v, %v, %v, want %v, %v", tt.args, tt.env, o.peerFilter, o.sourceCheck, err, tt.peers, tt.own)
		}
	}
}

// Hosts ask each other only if told to, by a key that each run makes.
func TestProbeIsOffUnlessSwitchedOn(t *testing.T) {
	for _, tt := range []struct {
		args []string
		env  string
		want bool
	}{
		{nil, "", false}, {[]string{"--probe=on"}, "", true}, {nil, "TULLED_PROBE=on", true}, {[]string{"--probe", "off"}, "TULLED_PROBE=on", false},
	} {
		o, err := parse(tt.args, env(tt.env), nil)
		if err != nil || o.probe != tt.want || (newProber(o.probe, nil) != nil) != tt.want {
			t.Errorf("%q, %q: %v, %v, want %v", tt.args, tt.env, o.probe, err, tt.want)
		}
		runDir := t.TempDir()
		first, _, err := askedAt(o.probe, runDir)
		second, _, again := askedAt(o.probe, runDir)
		other, _, elsewhere := askedAt(o.probe, t.TempDir())
		if first != second || (first != other) != tt.want || (first.Port == 8473) != tt.want || errors.Join(err, again, elsewhere) != nil {
			t.Errorf("asked at port %d and then %d, keys of two hosts differ is %t, %v, %v, %v", first.Port, second.Port, first != other, err, again, elsewhere)
		}
	}
}

func TestAnswerIsOnUnlessSwitchedOff(t *testing.T) {
	for _, tt := range []struct {
		args []string
		env  string
		want bool
	}{
		{nil, "", true}, {[]string{"--answer=off"}, "", false}, {nil, "TULLED_ANSWER=off", false}, {[]string{"--answer", "on"}, "TULLED_ANSWER=off", true},
	} {
		o, err := parse(tt.args, env(tt.env), nil)
		if err != nil || (answers(o, nil) != nil) != tt.want {
			t.Errorf("%q, %q: answers is %t, %v, want %t", tt.args, tt.env, o.answer, err, tt.want)
		}
	}
}

func TestFastPathSettings(t *testing.T) {
	o, err := parse(nil, env(), nil)
	if err != nil || o.fastPath != fastPathAuto || o.fastPathExclude != nil || o.fastPathLife != 0 || o.bpfDir != "/sys/fs/bpf/tulle" {
		t.Errorf("by default %+v, %v", o, err)
	}
	o, err = parse([]string{"--fast-path-exclude=10.5.7.0/24, fc00:5:0:7::/64", "--fast-path-exclude", "10.5.9.3,10.5.7.0/24", "--bpf-dir=/b"}, env("TULLED_FAST_PATH=off", "TULLED_FAST_PATH_LIFE=-1s"), nil)
	want := []netip.Prefix{netip.MustParsePrefix("10.5.7.0/24"), netip.MustParsePrefix("fc00:5:0:7::/64"), netip.MustParsePrefix("10.5.9.3/32")}
	if err != nil || o.fastPath != fastPathOff || !slices.Equal(o.fastPathExclude, want) || o.fastPathLife != -time.Second || o.bpfDir != "/b" {
		t.Errorf("%+v, %v, want %v", o, err, want)
	}
}

func TestBadUsageExits2AndNamesTheCulprit(t *testing.T) {
	tests := []struct {
		name string
		args []string
		env  []string
		want []string
	}{
		{"unknown flag", []string{"--no-such"}, nil, []string{"no-such"}},
		{"argument", []string{"up"}, nil, []string{`"up"`}},
		{"family", []string{"--public-ip", "fd00::1"}, nil, []string{"public-ip", "fd00::1", "ipv4"}},
		{"link-local", []string{"--public-ipv6", "fe80::1"}, nil, []string{"public-ipv6", "fe80::1", "other hosts"}},
		{"environment", nil, []string{"TULLED_HEALTHZ_PORT=99999"}, []string{"TULLED_HEALTHZ_PORT", "99999", "0 to 65535"}},
		{"flannel environment", nil, []string{"FLANNELD_IP_MASQ=maybe"}, []string{"FLANNELD_IP_MASQ", "maybe"}},
		{"margin", []string{"-subnet-lease-renew-margin=0"}, nil, []string{"1 to 1439"}},
		{"regex", []string{"-iface-regex=("}, nil, []string{"iface-regex"}},
		{"node id", []string{"--node-id=bad/id"}, nil, []string{"node-id", `"bad/id"`, "letters"}},
		{"peer filter", nil, []string{"TULLED_PEER_FILTER=no"}, []string{"TULLED_PEER_FILTER", "on or off"}},
		{"probe", []string{"--probe=yes"}, nil, []string{"probe", "on or off"}},
		{"answer", nil, []string{"TULLED_ANSWER=no"}, []string{"TULLED_ANSWER", "on or off"}},
		{"fast path", []string{"--fast-path=yes"}, nil, []string{"fast-path", "auto, on or off"}},
		{"no prefix", []string{"--fast-path-exclude=10.5.7.0/24,web"}, nil, []string{"fast-path-exclude", `"web"`, "not a prefix"}},
		{"host bits", nil, []string{"TULLED_FAST_PATH_EXCLUDE=10.5.7.9/24"}, []string{"TULLED_FAST_PATH_EXCLUDE", "10.5.7.9/24", "want 10.5.7.0/24"}},
		{"mapped prefix", []string{"--fast-path-exclude=::ffff:10.5.7.0/120"}, nil, []string{"not a prefix"}},
		{"short lease", []string{"--lease-ttl=1s"}, nil, []string{"lease-ttl", `"1s"`, "5s or more", "none"}},
		{"no lease", nil, []string{"TULLED_LEASE_TTL=never"}, []string{"TULLED_LEASE_TTL", "never", "5s or more"}},
		{"policy", []string{"--on-subnet-loss=panic"}, nil, []string{"on-subnet-loss", "hold or renumber"}},
		{"log format", []string{"-log-format=xml"}, nil, []string{"text or json"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if code := run(context.Background(), tt.args, env(tt.env...), &out, &errs); code != exitUsage {
				t.Errorf("exit code %d, want %d", code, exitUsage)
			}
			for _, want := range tt.want {
				if !strings.Contains(errs.String(), want) {
					t.Errorf("message %q lacks %q", errs.String(), want)
				}
			}
		})
	}
}

func TestPasswordIsNeverShown(t *testing.T) {
	var out, errs bytes.Buffer
	code := run(context.Background(), []string{"--etcd-password=hunter2", "--node-id=h1", "--run-dir=/dev/null/run"}, env(), &out, &errs)
	if code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	if s := out.String() + errs.String(); strings.Contains(s, "hunter2") {
		t.Errorf("the password is in %q", s)
	}
}

func TestVersion(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(context.Background(), []string{"-version"}, env("TULLED_VERSION=x"), &out, &errs); code != exitStopped || out.String() != version+"\n" {
		t.Errorf("exit code %d, output %q", code, out.String())
	}
}

func TestLeaseTTL(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 0, "90m": 90 * time.Minute, "none": subnet.Forever} {
		o, err := parse(nil, env("TULLED_LEASE_TTL="+value), nil)
		if err != nil || o.leaseTTL != want {
			t.Errorf("%q: %v, %v, want %v", value, o.leaseTTL, err, want)
		}
	}
}

// The sample of the environment has all flags as variables, but those that are no settings or not to be recommended.
func TestEnvironmentFileHasAllFlags(t *testing.T) {
	data, err := os.ReadFile("../../dist/tulled.env")
	if err != nil {
		t.Fatal(err)
	}
	var have, want []string
	for _, m := range regexp.MustCompile(`(?m)^#(TULLED_[A-Z0-9_]+)=`).FindAllSubmatch(data, -1) {
		have = append(have, string(m[1]))
	}
	fs := flag.NewFlagSet("tulled", flag.ContinueOnError)
	new(options).define(fs)
	fs.VisitAll(func(f *flag.Flag) {
		if !slices.Contains([]string{"version", "etcd-password", "subnet-lease-renew-margin", "fast-path-life"}, f.Name) {
			want = append(want, "TULLED_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")))
		}
	})
	slices.Sort(have)
	if have, want = slices.Compact(have), slices.Sorted(slices.Values(want)); !slices.Equal(have, want) {
		t.Errorf("dist/tulled.env has\n%q, want\n%q", have, want)
	}
}
