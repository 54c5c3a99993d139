//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/agent"
	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/internal/trouble"
	"tulle/ip"
)

const (
	hosts           = 5
	etcdMembers     = 3
	convergeTimeout = 30 * time.Second
	pollInterval    = 10 * time.Millisecond
)

// world is the network that all scripts share, and what is recorded of it.
//
//	        etcd1    etcd2    etcd3
//	          └────────┼────────┘
//	                 router
//	 ┌────────┬────────┼────────┬────────┐ ┄ ┄ ┄ ┐
//	 h1       h2       h3       h4       h5      h6, which runs when a script
//	h1/c1    h2/c1    h3/c1    h4/c1    h5/c1    wants a host without a subnet
type world struct {
	t        *testing.T // of the whole run
	lab      *lab.Lab
	hosts    []*lab.Host
	spare    *lab.Host
	etcd     *clientv3.Client
	history  *history
	beliefs  *beliefs
	baseline map[string]string // the data plane of each host
	saved    string            // where a script has put etcd's data
	fast     bool              // hosts have the fast path
}

func newWorld(t *testing.T) *world {
	t.Helper()
	l := labtest.New(t, lab.Config{
		Hosts: hosts + 1, Containers: 2, EtcdMembers: etcdMembers, EtcdTLS: true, FastPath: "on",
		Progress: func(message string) { t.Log(message) },
	})
	w := &world{t: t, lab: l, hosts: l.Hosts[:hosts], spare: l.Hosts[hosts], saved: filepath.Join(l.Config.Dir, "saved")}
	if err := w.up(); err != nil {
		t.Fatal(err)
	}
	fast, err := w.hosts[0].FastPath(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w.fast = fast.On; !w.fast && os.Getenv("CI") != "" {
		t.Fatalf("there is no fast path: %s", fast.Reason)
	}
	w.etcd = newClient(t, l.Etcd)
	w.history = newHistory(w.t.Context(), w.etcd, l.Etcd.Key("subnets/"))
	w.beliefs = watchBeliefs(w.t.Context(), l.Hosts)
	t.Cleanup(func() { w.history.close(); w.beliefs.close() })
	w.baseline = make(map[string]string)
	var wg sync.WaitGroup
	planes := make([]string, len(w.hosts))
	errs := make([]error, len(w.hosts))
	for i, host := range w.hosts {
		wg.Go(func() { planes[i], errs[i] = steadyDataPlane(host) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for i, host := range w.hosts {
		w.baseline[host.Name] = planes[i]
	}
	return w
}

// steadyDataPlane is the data plane of a host once it has stayed the same for two seconds: tulled follows the bridge of the containers, which
// has only just come.
func steadyDataPlane(host *lab.Host) (string, error) {
	const same, most = 20, 300
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last, times := "", 0
	for range most {
		text, err := host.DataPlane()
		if err != nil {
			return "", err
		}
		if times++; text != last {
			last, times = text, 0
		}
		if times == same {
			return last, nil
		}
		<-tick.C
	}
	return "", fmt.Errorf("the data plane of %s still changes after %d looks", host, most)
}

func (w *world) up() error {
	for _, step := range []func(context.Context) error{w.lab.Etcd.Start, w.configure, w.startDaemons} {
		if err := step(w.t.Context()); err != nil {
			return err
		}
	}
	for _, host := range w.hosts {
		if err := host.StartContainers(); err != nil {
			return err
		}
	}
	return nil
}

// configure writes a configuration with as many subnets as there are hosts, so
// that one more host can only get what another has lost.
func (w *world) configure(ctx context.Context) error {
	var config map[string]any
	if err := json.Unmarshal([]byte(w.lab.NetworkConfig()), &config); err != nil {
		return fmt.Errorf("decode network configuration: %w", err)
	}
	config["SubnetLen"], config["IPv6SubnetLen"] = 24, 64
	config["SubnetMin"], config["IPv6SubnetMin"] = nthSubnet(w.lab, ip.IPv4, 1).Addr(), nthSubnet(w.lab, ip.IPv6, 1).Addr()
	config["SubnetMax"], config["IPv6SubnetMax"] = nthSubnet(w.lab, ip.IPv4, hosts).Addr(), nthSubnet(w.lab, ip.IPv6, hosts).Addr()
	text, err := json.Marshal(config)
	if err != nil {
		return fmt.Errorf("encode network configuration: %w", err)
	}
	return w.lab.Etcd.Put(ctx, w.lab.Etcd.Key("config"), string(text))
}

// nthSubnet is a /24 or a /64 of the overlay.
func nthSubnet(l *lab.Lab, family ip.Family, n byte) netip.Prefix {
	bytes := l.Config.Network.Of(family).Addr().AsSlice()
	bits := 24
	if family == ip.IPv6 {
		bits = 64
	}
	bytes[bits/8-1] = n
	addr, _ := netip.AddrFromSlice(bytes)
	return netip.PrefixFrom(addr, bits)
}

func (w *world) startDaemons(ctx context.Context) error {
	for _, host := range w.hosts {
		if err := host.StartDaemon(); err != nil {
			return err
		}
	}
	for _, host := range w.hosts {
		if err := host.WaitReady(ctx); err != nil {
			return err
		}
	}
	// Ready is who has a lease; the routes to those that came later follow.
	return w.await(convergeTimeout, func() error {
		for _, host := range w.hosts {
			status, err := w.status(host)
			if err != nil {
				return err
			}
			if len(status.Of("").Peers) != hosts-1 || !status.Ready {
				return fmt.Errorf("%s has %d peers, ready %t", host, len(status.Of("").Peers), status.Ready)
			}
		}
		return nil
	})
}

func (w *world) status(host *lab.Host) (agent.Status, error) {
	var status agent.Status
	err := host.Status(w.t.Context(), &status)
	return status, err
}

// converged returns what is not as it was when the world was made.
func (w *world) converged() error {
	for _, host := range w.hosts {
		now, err := host.DataPlane()
		if err != nil {
			return err
		}
		if before := w.baseline[host.Name]; now != before {
			return fmt.Errorf("data plane of %s before (-) and now (+):\n%s", host, cmp.Diff(before, now))
		}
		status, err := w.status(host)
		if err != nil {
			return err
		}
		switch {
		case !status.Ready:
			return fmt.Errorf("tulled on %s is not ready: %s", host, status.Reason)
		case status.Troubles.Has(trouble.StoreUnreachable):
			return fmt.Errorf("tulled on %s has trouble with etcd: %s", host, status.Troubles.Texts(trouble.StoreUnreachable))
		case status.Of("").Lease == nil || !status.Of("").Lease.Held:
			return fmt.Errorf("tulled on %s does not hold its lease", host)
		}
	}
	return nil
}

// violations are those of Tulle's invariants that a daemon has found in its own
// passes since it started.
func (w *world) violations() error {
	var errs []error
	for _, host := range w.hosts {
		status, err := w.status(host)
		if err != nil {
			errs = append(errs, err)
		} else if status.Violated > 0 {
			errs = append(errs, fmt.Errorf("tulled on %s counts %d violations, of them now: %v", host, status.Violated, status.Troubles.Texts(trouble.Fault)))
		}
	}
	return errors.Join(errs...)
}

// await calls check until it returns nil; the last error if it does not in time.
func (w *world) await(timeout time.Duration, check func() error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	deadline := time.After(timeout)
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-deadline:
			return fmt.Errorf("%v later: %w", timeout, err)
		case <-w.t.Context().Done():
			return context.Cause(w.t.Context())
		}
	}
}

// repair undoes what a script that failed has left, for the next one.
func (w *world) repair(t *testing.T) {
	t.Helper()
	w.run("router", "nft", "delete", "table", "inet", cutTable)
	for _, host := range w.lab.Hosts {
		w.run("router", "ip", "link", "set", host.Name, "up")
	}
	w.lab.Etcd.Kill()
	w.move(defaultPort)
	w.lab.Config.Tulled = filepath.Join(labtest.Programs(), "tulled")
	errs := []error{w.lab.Etcd.Start(w.t.Context()), w.configure(w.t.Context()), w.releaseSpare()}
	for _, host := range w.hosts {
		host.KillDaemon()
		errs = append(errs, w.restoreUnderlay(host), host.RenewClientCert(time.Hour), host.StartDaemon())
	}
	errs = append(errs, w.hush(2*convergeTimeout)) // the script may have failed while the canary was there
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("repair the network: %v", err)
	}
	w.history.restart()
}

// run runs a program inside a node and returns what it said if it failed.
func (w *world) run(node, program string, args ...string) error {
	ns, err := w.lab.Namespace(node)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(w.t.Context(), program, args...)
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := ns.Do(cmd.Start); err != nil {
		return fmt.Errorf("run %s in %s: %w", program, node, err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("run %s %s in %s: %w\n%s", program, strings.Join(args, " "), node, err, output.String())
	}
	return nil
}
