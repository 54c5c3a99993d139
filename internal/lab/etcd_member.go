//go:build linux

package lab

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
	"syscall"

	"tulle/ip"
)

const (
	etcdPort     = 2379
	etcdPeerPort = 2380
	// etcdSegment is the segment of the members, if there are several.
	etcdSegment = maxSegments + 1
	maxMembers  = 7
)

// EtcdMember is one member of the lab's etcd: a process that can be ended and
// started again on its data.
type EtcdMember struct {
	*node
	// Name is "etcd", followed by the member's number if there are several.
	Name string
	Addr netip.Addr

	etcd    *Etcd
	process *process
}

// addEtcd makes the members' namespaces. None runs yet.
func (l *Lab) addEtcd() error {
	if l.Config.EtcdMembers == 1 {
		l.Etcd.Members = []*EtcdMember{l.memberOnRouter()}
		return nil
	}
	if err := l.addSegment(etcdSegment); err != nil {
		return err
	}
	for number := 1; number <= l.Config.EtcdMembers; number++ {
		member := l.newMember(number)
		var err error
		if member.node, err = newNode(member.Name, l.pins()); err != nil {
			return err
		}
		l.Etcd.Members = append(l.Etcd.Members, member)
		var addresses ip.Dual[netip.Addr]
		addresses.Set(l.Config.Families[0], member.Addr)
		if err := l.join(member.node, etcdSegment, addresses); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) reopenEtcd() error {
	if l.Config.EtcdMembers == 1 {
		l.Etcd.Members = []*EtcdMember{l.memberOnRouter()}
		return nil
	}
	for number := 1; number <= l.Config.EtcdMembers; number++ {
		member := l.newMember(number)
		var err error
		if member.node, err = openNode(member.Name, l.pins()); err != nil {
			return err
		}
		l.Etcd.Members = append(l.Etcd.Members, member)
	}
	return nil
}

func (l *Lab) memberOnRouter() *EtcdMember {
	return &EtcdMember{node: l.router, Name: "etcd", Addr: routerAddr(l.Config.Families[0], 1), etcd: l.Etcd}
}

func (l *Lab) newMember(number int) *EtcdMember {
	return &EtcdMember{
		Name: fmt.Sprintf("etcd%d", number),
		Addr: nth(segmentPrefix(l.Config.Families[0], etcdSegment).Addr(), int64(number)),
		etcd: l.Etcd,
	}
}

// URL is where the member serves clients.
func (m *EtcdMember) URL() string { return m.etcd.url(m.Addr) }

func (e *Etcd) url(addr netip.Addr) string {
	scheme := "http://"
	if e.authority != nil {
		scheme = "https://"
	}
	return scheme + netip.AddrPortFrom(addr, uint16(e.port)).String()
}

func (m *EtcdMember) peerURL() string {
	return "http://" + netip.AddrPortFrom(m.Addr, etcdPeerPort).String()
}

// DataDir is the directory of the member's database.
func (m *EtcdMember) DataDir() string { return filepath.Join(m.etcd.dataDir, m.Name) }

func (m *EtcdMember) log() string { return filepath.Join(m.etcd.lab.Config.Dir, m.Name+".log") }

// Running reports whether the member's process is there.
func (m *EtcdMember) Running() bool { return m.process != nil && !m.process.exited() }

// Start starts the member without waiting for it, which may need a quorum.
func (m *EtcdMember) Start() error {
	if m.Running() {
		return fmt.Errorf("start %s: it is running", m.Name)
	}
	if err := m.etcd.makeDataDir(); err != nil {
		return err
	}
	l := m.etcd.lab
	scheme, wildcard := "http", "[::]"
	if !slices.Contains(l.Config.Families, ip.IPv6) {
		wildcard = "0.0.0.0"
	}
	line := []string{
		"etcd", "--name", m.Name, "--data-dir", m.DataDir(),
		"--advertise-client-urls", m.URL(),
		"--unsafe-no-fsync",
		"--log-level", "fatal",
	}
	if len(m.etcd.Members) > 1 {
		line = append(line, "--listen-peer-urls", m.peerURL(), "--initial-advertise-peer-urls", m.peerURL(),
			"--initial-cluster", m.etcd.initialCluster())
	}
	if authority := m.etcd.authority; authority != nil {
		scheme = "https"
		files, err := authority.server(m.Name, m.Addr)
		if err != nil {
			return err
		}
		line = append(line, "--cert-file", files.cert, "--key-file", files.key, "--trusted-ca-file", files.ca)
	}
	line = append(line, "--listen-client-urls", scheme+"://"+wildcard+":"+strconv.Itoa(m.etcd.port))
	process, err := l.start(m.node, m.Name, m.log(), l.Config.Tulle, line...)
	if err != nil {
		return err
	}
	m.process = process
	return nil
}

func (e *Etcd) initialCluster() string {
	pairs := make([]string, len(e.Members))
	for i, member := range e.Members {
		pairs[i] = member.Name + "=" + member.peerURL()
	}
	return strings.Join(pairs, ",")
}

// WaitServing waits until the member answers with the cluster's data.
func (m *EtcdMember) WaitServing(ctx context.Context) error {
	var last error
	err := poll(ctx, readyTimeout, func() bool {
		if m.process.exited() {
			last = errors.New("it exited: " + m.process.outcome())
			return true
		}
		last = m.call(ctx, "kv/range", map[string]any{"key": []byte(etcdPrefix)}, nil)
		return last == nil
	})
	if ctx.Err() != nil {
		return fmt.Errorf("wait for %s: %w", m.Name, context.Cause(ctx))
	}
	if err != nil || last != nil {
		return fmt.Errorf("wait for %s: %w\n%s%s", m.Name, errors.Join(err, last), logTail(m.log()), m.process.where())
	}
	return nil
}

// Stop asks the member to stop and waits for it. Its data stay.
func (m *EtcdMember) Stop() error {
	if m.process == nil {
		return nil
	}
	return m.process.stop()
}

// Kill kills the member with SIGKILL. Its data stay.
func (m *EtcdMember) Kill() {
	if m.process != nil {
		m.process.kill()
	}
}

// Pause stops the member in its tracks with SIGSTOP, until Resume.
func (m *EtcdMember) Pause() error { return m.process.signal(syscall.SIGSTOP) }

// Resume lets a paused member go on.
func (m *EtcdMember) Resume() error { return m.process.signal(syscall.SIGCONT) }

// CopyData copies the data of a member that does not run to a directory, which
// must not exist, or back from it.
func (m *EtcdMember) CopyData(dir string, back bool) error {
	if m.Running() {
		return fmt.Errorf("copy data of %s: it is running", m.Name)
	}
	from, to := m.DataDir(), dir
	if back {
		from, to = to, from
		if err := os.RemoveAll(to); err != nil {
			return fmt.Errorf("copy data of %s: %w", m.Name, err)
		}
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return fmt.Errorf("copy data of %s: %w", m.Name, err)
	}
	return nil
}
