//go:build linux

package lab_test

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"tulle/internal/lab"
	"tulle/ip"
)

// tulle runs the operator's tool inside a host and returns what it prints.
func tulle(t *testing.T, l *lab.Lab, host *lab.Host, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), l.Config.Tulle, args...)
	cmd.Env = append(cmd.Environ(), host.Environment()...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := host.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("tulle %s on %s: %v\n%s", strings.Join(args, " "), host, err, errs.String())
	}
	return out.String()
}

// The plan of a host that is as it should be is empty; without the daemon to
// mend it, a deleted route is in the plan.
func TestPlan(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1, Families: []ip.Family{ip.IPv4}})
	host, peer := l.Hosts[0], l.Hosts[1]
	requireMatrix(t, l)
	if plan := tulle(t, l, host, "plan"); plan != "" {
		t.Errorf("plan of a converged host:\n%s", plan)
	}
	if err := host.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	if plan := tulle(t, l, host, "plan"); plan != "" {
		t.Errorf("plan after the daemon has stopped:\n%s", plan)
	}
	if err := host.DeleteRoutesTo(peer, ip.IPv4); err != nil {
		t.Fatal(err)
	}
	env, err := peer.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	want := "ip route replace " + env.Subnets.V4.String()
	if plan := tulle(t, l, host, "plan"); !strings.HasPrefix(plan, want) || strings.Count(plan, "\n") != 1 {
		t.Errorf("plan is %q, want the one line %q…", plan, want)
	}
	if err := host.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := host.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if plan := tulle(t, l, host, "plan"); plan != "" {
		t.Errorf("plan after the daemon has mended the route:\n%s", plan)
	}
	requireMatrix(t, l)
}

// Cleanup removes what the daemon made and nothing else.
func TestCleanup(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1})
	host := l.Hosts[0]
	if err := host.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	tulle(t, l, host, "cleanup")
	links, err := host.VXLANLinks()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := host.Tables()
	if err != nil {
		t.Fatal(err)
	}
	if len(links) > 0 || len(tables) > 0 {
		t.Errorf("left: links %v, tables %v", links, tables)
	}
	if _, err := host.ReadSubnetFile(); err == nil {
		t.Error("the subnet file is left")
	}
	if err := host.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := host.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	requireMatrix(t, l)
}
