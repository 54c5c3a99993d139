package doctortest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tulle/internal/doctor"
	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/internal/lab/machinetest"
	"tulle/internal/trouble"
	"tulle/ip"
)

func TestMain(m *testing.M) { labtest.Main(m) }

const (
	foundWithin  = 40 * time.Second // tulled looks again after 30 s at the latest, and at once where the kernel tells it
	healedWithin = 30 * time.Second
	lookEvery    = 200 * time.Millisecond
)

// world is a lab of two hosts with files and processes of their own. h1 has two containers, and CNI plugins.
type world struct {
	lab      *lab.Lab
	machines map[string]*machinetest.Machine
	words    *strings.Replacer
}

func newWorld(t *testing.T, backend string, families ...ip.Family) *world {
	t.Helper()
	w := &world{machines: map[string]*machinetest.Machine{}}
	w.lab = labtest.New(t, lab.Config{Hosts: 2, Backend: map[string]any{"Type": backend}, Families: families, DaemonArgs: func(*lab.Host) []string { return []string{"--probe=on"} }})
	if err := w.lab.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, h := range w.lab.Hosts {
		w.machines[h.Name] = machinetest.New(t, h, labtest.Programs())
	}
	pairs := []string{"ENTER", "nsenter --net=/run/netns/c1", "SUBNETFILE", w.lab.Hosts[0].SubnetFile()}
	for _, f := range w.lab.Config.Families {
		n := strings.TrimPrefix(f.String(), "ipv")
		own, peer := w.subnet(t, 0, f), w.subnet(t, 1, f)
		gateway := own.Addr().Next()
		pairs = append(pairs, "OWN"+n, own.String(), "PEER"+n, peer.String(), "GATE"+n, gateway.String(), "ROUTER"+n, w.lab.RouterAddr(f, 1).String(),
			"CONTAINER"+n, gateway.Next().Next().String())
	}
	env, err := w.lab.Hosts[0].ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	prefix := env.Subnets.V4.Masked().Addr().String()
	pairs = append(pairs, "HOST1", w.lab.Hosts[0].Addr.V4.String(), "HOST2", w.lab.Hosts[1].Addr.V4.String(), "MTU", strconv.Itoa(env.MTU), "PREFIX4", strings.TrimSuffix(prefix, ".0"))
	w.words = strings.NewReplacer(pairs...)
	w.addContainers(t)
	w.do(t, []string{
		"h1 sysctl -w net.ipv6.conf.eth0.keep_addr_on_down=1", // as what looks after addresses would bring them back
		"h1 mkdir -p /opt/cni/bin /etc/cni/net.d && ln -s /usr/lib/cni/bridge /usr/lib/cni/host-local /usr/lib/cni/portmap /opt/cni/bin && touch /opt/cni/bin/tulle",
		`h1 echo '{"cniVersion":"1.0.0","name":"tulle","plugins":[{"type":"tulle"},{"type":"portmap"}]}' >/etc/cni/net.d/10-tulle.conflist`,
		"h1 rm -f /etc/resolv.conf; echo nameserver 172.30.1.254 >/etc/resolv.conf",
	})
	// What firewalld's tool would do: nothing of what the firewall keeps is here, but for the table.
	w.machines["h1"].Program(t, "firewall-cmd", `#!/bin/sh
case $1 in
--permanent) shift 2; for source; do echo "${source#--add-source=}"; done >/run/zone ;;
--reload) while read -r source; do case $source in *:*) family=ip6 ;; *) family=ip ;; esac
	nft insert rule inet firewalld filter_FORWARD $family saddr $source accept && nft insert rule inet firewalld filter_FORWARD $family daddr $source accept || exit 1; done </run/zone ;;
esac
`)
	return w
}

func (w *world) subnet(t *testing.T, host int, f ip.Family) netip.Prefix {
	t.Helper()
	env, err := w.lab.Hosts[host].ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	return env.Subnets.Of(f).Masked()
}

// addContainers makes two on h1, as ip-netns(8) and CNI runtimes do: in a namespace with a name.
func (w *world) addContainers(t *testing.T) {
	t.Helper()
	for n := 1; n <= 2; n++ {
		name := "c" + strconv.Itoa(n)
		lines := []string{"h1 ip netns add " + name, fmt.Sprintf("h1 ip link add port%d mtu MTU type veth peer name eth0 mtu MTU netns %s", n, name),
			fmt.Sprintf("h1 ip link set dev port%d master cni0 up", n), name + " ip link set dev lo up", name + " ip link set dev eth0 up"}
		for _, f := range w.lab.Config.Families {
			gateway := w.subnet(t, 0, f).Addr().Next()
			addr := gateway
			for range n {
				addr = addr.Next()
			}
			nodad := map[ip.Family]string{ip.IPv6: " nodad"}[f]
			lines = append(lines, fmt.Sprintf("%s ip address add %s/%d dev eth0%s", name, addr, w.subnet(t, 0, f).Bits(), nodad), fmt.Sprintf("%s %s route add default via %s dev eth0", name, f.Command(), gateway))
		}
		w.do(t, lines)
	}
}

// do runs commands, each on the host or in the container that stands before it.
func (w *world) do(t *testing.T, lines []string) {
	t.Helper()
	for _, line := range lines {
		where, command, _ := strings.Cut(w.words.Replace(line), " ")
		if where == "etcd" {
			w.etcd(t, command)
			continue
		}
		if strings.HasPrefix(where, "c") {
			where, command = "h1", "ip netns exec "+where+" "+command
		}
		w.run(t, where, command)
	}
}

// run runs one command on a host.
func (w *world) run(t *testing.T, host, command string) {
	t.Helper()
	if verb, ok := strings.CutPrefix(command, "systemctl "); ok {
		w.systemctl(t, host, strings.TrimSuffix(verb, " tulled"))
		return
	}
	w.machines[host].Run(t, "bash", "-ec", command)
}

// etcd does with the store what somebody does who runs it, or writes to it.
func (w *world) etcd(t *testing.T, command string) {
	t.Helper()
	verb, rest, _ := strings.Cut(command, " ")
	key, value, _ := strings.Cut(rest, " ")
	var err error
	switch verb {
	case "stop":
		err = w.lab.Etcd.Stop()
	case "start":
		err = w.lab.Etcd.Start(t.Context())
	case "put":
		err = w.lab.Etcd.Put(t.Context(), w.lab.Etcd.Key(key), value)
	case "delete":
		err = w.lab.Etcd.Delete(t.Context(), w.lab.Etcd.Key(key))
	default:
		err = fmt.Errorf("etcd %s: no lab does that", command)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) systemctl(t *testing.T, host, verb string) {
	t.Helper()
	h := w.lab.Host(host)
	var err error
	switch verb {
	case "start":
		err = h.StartDaemon()
	case "stop":
		err = h.StopDaemon()
	case "freeze":
		err = h.PauseDaemon()
	case "restart":
		h.KillDaemon() // after a while, as systemd does with what does not stop
		err = h.StartDaemon()
	default:
		err = fmt.Errorf("systemctl %s: no lab does that", verb)
	}
	if err == nil && (verb == "start" || verb == "restart") {
		err = h.WaitReady(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ask runs the doctor on a host.
func (w *world) ask(t *testing.T, host string, args ...string) (report doctor.Report, err error) {
	t.Helper()
	out, err := w.machines[host].Command(t.Context(), append([]string{"tulle", "doctor", "--json"}, args...)...).Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1 && exit.ExitCode() != 3) {
		if exit != nil {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return report, err
	}
	code := 0
	if exit != nil {
		code = exit.ExitCode()
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return report, err
	}
	if want := map[bool]int{true: 0, false: 1}[report.Healthy()]; code != want && (code != 3 || len(report.Untold) == 0) {
		return report, fmt.Errorf("exit code %d of %+v", code, report)
	}
	return report, nil
}

// until asks until the report is as wanted, and fails if that takes longer than it may.
func (w *world) until(t *testing.T, host string, within time.Duration, what string, wanted func(doctor.Report) bool) doctor.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for {
		report, err := w.ask(t, host)
		if err == nil && wanted(report) {
			return report
		}
		select {
		case <-ctx.Done():
			text, _ := json.MarshalIndent(report, "", "  ")
			t.Fatalf("not %s within %v: %v\n%s", what, within, err, text)
		case <-time.After(lookEvery):
		}
	}
}

func healthy(r doctor.Report) bool { return r.Healthy() && len(r.Untold) == 0 }

func codes(fs []doctor.Finding) (list []trouble.Code) {
	for _, f := range fs {
		list = append(list, f.Code)
	}
	return list
}

// followed is each report whose first finding has a fix to follow, until nothing is found: what follows from a fault may be left when that is gone.
func (w *world) followed(t *testing.T, report doctor.Report) func(yield func(doctor.Report) bool) {
	return func(yield func(doctor.Report) bool) {
		const most = 3 // faults that one leaves
		for range most {
			fix := []string(nil)
			if len(report.Findings) > 0 {
				fix = report.Findings[0].Fix
			}
			if len(fix) > 0 && !yield(report) {
				return
			}
			report = w.until(t, "h1", healedWithin, "healed", func(r doctor.Report) bool {
				return healthy(r) || len(r.Findings) > 0 && len(r.Findings[0].Fix) > 0 && !slices.Equal(r.Findings[0].Fix, fix)
			})
			if healthy(report) {
				return
			}
		}
		t.Fatalf("not healed by the fixes of %d findings", most)
	}
}

// test injects the fault of a row, and follows what the doctor prints until it finds nothing.
func (w *world) test(t *testing.T, row Row) {
	w.do(t, row.Inject)
	report := w.until(t, "h1", foundWithin, "found", func(r doctor.Report) bool {
		return len(r.Findings) > 0 && r.Findings[0].Code == row.Code && !slices.ContainsFunc(row.Follow, func(c trouble.Code) bool { return !slices.Contains(codes(r.Findings[0].Follows), c) })
	})
	first := report.Findings[0]
	var want []string
	for _, command := range row.Fix {
		want = append(want, w.words.Replace(command))
	}
	if !slices.EqualFunc(first.Fix, want, func(got, want string) bool {
		begin, open := strings.CutSuffix(want, "*")
		return got == want || open && strings.HasPrefix(got, begin)
	}) {
		t.Errorf("the fix is %q, want %q", first.Fix, want)
	}
	if len(first.Fix) == 0 {
		if first.Remedy == "" {
			t.Errorf("%+v says not what to do", first)
		}
		w.do(t, row.ByHand)
	}
	for report := range w.followed(t, report) {
		for _, command := range report.Findings[0].Fix {
			w.run(t, report.Findings[0].Host, command)
		}
	}
	if len(row.After) > 0 {
		w.do(t, row.After)
		w.until(t, "h1", healedWithin, "as before", healthy)
	}
}
