//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/lab"
	"tulle/ip"
)

const (
	// cutTable is the nftables table on the router that keeps hosts from etcd.
	cutTable    = "cut"
	defaultPort = 2379
)

// cut takes the cable of a host, or drops all that passes between it and etcd.
func (r *row) cut(args []string) error {
	host, err := r.host(args[0])
	if err != nil {
		return err
	}
	if len(args) == 1 {
		return r.w.run("router", "ip", "link", "set", host.Name, "down")
	}
	var rules strings.Builder
	fmt.Fprintf(&rules, "table inet %s {\nchain forward {\ntype filter hook forward priority 0\n", cutTable)
	for _, member := range r.w.lab.Etcd.Members {
		addr := host.Addr.Of(ip.FamilyOf(member.Addr))
		fmt.Fprintf(&rules, "ip saddr %s ip daddr %s drop\nip saddr %s ip daddr %s drop\n", addr, member.Addr, member.Addr, addr)
	}
	rules.WriteString("}\n}\n")
	file := filepath.Join(r.w.lab.Config.Dir, "cut.nft")
	if err := os.WriteFile(file, []byte(rules.String()), 0o644); err != nil {
		return err
	}
	return r.w.run("router", "nft", "-f", file)
}

func (r *row) mend(args []string) error {
	if len(args) == 1 {
		return r.w.run("router", "ip", "link", "set", args[0], "up")
	}
	return r.w.run("router", "nft", "delete", "table", "inet", cutTable)
}

func (r *row) restore(args []string) error { return r.each(args[0], r.w.restoreUnderlay) }

// links makes and deletes pairs of virtual Ethernet links.
func (r *row) links(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var batch strings.Builder
	for i := range n / 2 {
		fmt.Fprintf(&batch, "link add burst%d type veth peer name tsrub%d\n", i, i)
	}
	for i := range n / 2 {
		fmt.Fprintf(&batch, "link del burst%d\n", i)
	}
	file := filepath.Join(r.w.lab.Config.Dir, "links")
	if err := os.WriteFile(file, []byte(batch.String()), 0o644); err != nil {
		return err
	}
	return r.w.run(args[0], "ip", "-batch", file)
}

func (r *row) etcd(args []string) error {
	etcd, rest := r.w.lab.Etcd, args[1:]
	switch args[0] {
	case "kill":
		return r.members(rest, func(m *lab.EtcdMember) error { m.Kill(); return nil })
	case "pause":
		return r.members(rest, (*lab.EtcdMember).Pause)
	case "resume":
		return r.members(rest, (*lab.EtcdMember).Resume)
	case "start":
		return etcd.Start(r.w.t.Context())
	case "stop":
		return etcd.Stop()
	case "restart":
		return errors.Join(etcd.Stop(), etcd.Start(r.w.t.Context()))
	case "configure":
		return r.w.configure(r.w.t.Context())
	case "wipe":
		_, err := r.w.etcd.Delete(r.w.t.Context(), etcd.Key(""), clientv3.WithPrefix())
		return err
	case "release":
		return r.w.releaseSpare()
	case "compact":
		return r.w.compact()
	case "save":
		return r.w.copyData(false)
	case "load":
		return r.w.copyData(true)
	case "move":
		port, err := strconv.Atoi(rest[0])
		if err != nil {
			return err
		}
		r.w.move(port)
		return nil
	}
	return fmt.Errorf("%q is nothing that etcd does", args[0])
}

// members calls do for those named, of which one may be the leader.
func (r *row) members(names []string, do func(*lab.EtcdMember) error) error {
	leader := ""
	if slices.ContainsFunc(names, func(name string) bool { return name == "leader" || name == "follower" }) {
		var err error
		if leader, err = r.w.leader(); err != nil {
			return err
		}
	}
	var chosen []*lab.EtcdMember
	for _, name := range names {
		i := slices.IndexFunc(r.w.lab.Etcd.Members, func(m *lab.EtcdMember) bool {
			return m.Name == name || name == "leader" && m.Name == leader || name == "follower" && m.Name != leader
		})
		if i < 0 {
			return fmt.Errorf("no member %q", name)
		}
		chosen = append(chosen, r.w.lab.Etcd.Members[i])
	}
	for _, member := range chosen {
		if err := do(member); err != nil {
			return err
		}
	}
	return nil
}

// leader is the name of the member that leads; between two, as on a busy machine, there is none for a while.
func (w *world) leader() (name string, err error) {
	err = w.await(convergeTimeout, func() (err error) { name, err = w.leaderNow(); return err })
	return name, err
}

func (w *world) leaderNow() (string, error) {
	for _, member := range w.lab.Etcd.Members {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		status, err := w.etcd.Status(ctx, member.URL())
		cancel()
		if err == nil && status.Leader == status.Header.MemberId {
			return member.Name, nil
		}
	}
	return "", errors.New("no etcd member leads")
}

// compact forgets all that was before a few revisions that are new.
func (w *world) compact() error {
	var newest int64
	for i := range 10 {
		r, err := w.etcd.Put(w.t.Context(), w.lab.Etcd.Key("unrelated"), strconv.Itoa(i))
		if err != nil {
			return err
		}
		newest = r.Header.Revision
	}
	_, err := w.etcd.Compact(w.t.Context(), newest, clientv3.WithCompactPhysical())
	return err
}

// copyData saves the data of all members while they do not run, or brings back
// what was saved: a backup that has missed what was since.
func (w *world) copyData(back bool) error {
	if !back {
		if err := os.RemoveAll(w.saved); err != nil {
			return err
		}
	}
	if err := w.lab.Etcd.Stop(); err != nil {
		return err
	}
	for _, member := range w.lab.Etcd.Members {
		if err := member.CopyData(filepath.Join(w.saved, member.Name), back); err != nil {
			return err
		}
	}
	if err := w.lab.Etcd.Start(w.t.Context()); err != nil {
		return err
	}
	if back {
		w.history.restart()
	}
	return nil
}

// move gives etcd another port. It and the daemons are to be started again.
func (w *world) move(port int) {
	w.lab.Etcd.MoveTo(port)
	w.etcd.SetEndpoints(endpoints(w.lab.Etcd)...)
}

// releaseSpare ends the daemon of the sixth host and its lease.
func (w *world) releaseSpare() error {
	w.spare.KillDaemon()
	for key, lease := range w.history.present() {
		if lease.Attrs.Node == w.spare.Name {
			if _, err := w.etcd.Delete(w.t.Context(), key); err != nil {
				return err
			}
		}
	}
	return nil
}

// restoreUnderlay gives a host the addresses and routes of its uplink that it
// lacks, as a network manager does.
func (w *world) restoreUnderlay(host *lab.Host) error {
	if err := w.run(host.Name, "ip", "link", "set", "eth0", "up"); err != nil {
		return err
	}
	for _, family := range ip.Families() {
		bits := map[ip.Family]int{ip.IPv4: 24, ip.IPv6: 64}[family]
		prefix := netip.PrefixFrom(host.Addr.Of(family), bits).String()
		via := w.lab.RouterAddr(family, host.Segment).String()
		if err := errors.Join(
			w.run(host.Name, "ip", "address", "replace", prefix, "dev", "eth0", "nodad"),
			w.run(host.Name, "ip", "route", "replace", "default", "via", via, "dev", "eth0"),
		); err != nil {
			return err
		}
	}
	return nil
}
