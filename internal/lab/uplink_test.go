//go:build linux

package lab_test

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/hostfiles"
	"tulle/internal/lab"
	"tulle/internal/trouble"
	"tulle/ip"
)

type uplinkStatus struct {
	Ready    bool
	Reason   string
	Troubles trouble.List
	Uplink   struct {
		Link   string
		Public []string
	}
}

// The uplink in use carries the traffic, is mended and outlives a restart, whatever becomes of default routes and of other addresses; and which
// interface would be chosen today is told.
func TestUplinkInUse(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1, FindUplink: true})
	requireMatrix(t, l)
	host, peer := l.Hosts[0], l.Hosts[1]
	var was uplinkStatus
	if err := host.Status(t.Context(), &was); err != nil {
		t.Fatal(err)
	}
	dev := was.Uplink.Link
	if !eventually(time.Minute, func() bool {
		record, err := hostfiles.ReadRecord(filepath.Join(host.Dir, "state"))
		return err == nil && record.Established != nil
	}) {
		t.Fatal("the uplink is not established")
	}
	defaults := regexp.MustCompile(`(?m)^route (0\.0\.0\.0|::)/0 .*\n`)
	overlay := func() string { return defaults.ReplaceAllString(fingerprint(t, host), "") }
	before := overlay()
	holds := func(what string, named bool) {
		t.Helper()
		var now uplinkStatus
		if !eventually(healTimeout, func() bool {
			now = uplinkStatus{}
			return host.Status(t.Context(), &now) == nil && now.Ready && slices.Equal(now.Uplink.Public, was.Uplink.Public) &&
				now.Troubles.Has(trouble.UplinkOther) == named && overlay() == before
		}) {
			t.Errorf("%s: %+v, want %s and that another is named: %t; data plane before (-) and after (+):\n%s", what, now, dev, named, cmp.Diff(before, overlay()))
		}
		requireMatrix(t, l)
	}
	for _, step := range []struct {
		what     string
		named    bool
		commands string
	}{
		{"a VPN has the default routes", true, `
			link add vpn0 type veth peer name vpn1
			link set vpn1 up
			link set vpn0 up
			address add 10.8.0.2/24 dev vpn0
			address add fd08::2/64 dev vpn0 nodad
			route replace default via 10.8.0.1 dev vpn0
			-6 route del default
			-6 route add default via fd08::1 dev vpn0`},
		{"there is no default route", false, `
			route del default
			-6 route del default`},
		{"an address with a lifetime beside a virtual one", false, `
			address change ` + host.Addr.V4.String() + `/24 dev ` + dev + ` valid_lft 3600 preferred_lft 3600
			address add 172.30.1.99/32 dev ` + dev + `
			address add fd30:0:0:1::99/128 dev ` + dev + ` nodad`},
	} {
		for command := range strings.Lines(strings.TrimSpace(step.commands)) {
			run(t, host, "", "ip", strings.Fields(command)...)
		}
		holds(step.what, step.named)
		for _, f := range ip.Families() {
			if err := host.DeleteRoutesTo(peer, f); err != nil {
				t.Fatal(err)
			}
			holds(step.what+", routes deleted, "+f.String(), step.named)
		}
		if err := host.StopDaemon(); err != nil {
			t.Fatal(err)
		}
		if err := host.StartDaemon(); err != nil {
			t.Fatal(err)
		}
		if err := host.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		holds(step.what+", tulled restarted", step.named)
	}
}
