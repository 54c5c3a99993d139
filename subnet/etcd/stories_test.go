//go:build linux

package etcd_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"tulle/internal/etcdmember"
	"tulle/internal/etcdmember/etcdmembertest"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/etcd"
)

// TestStories runs the scripts in testdata: what hosts and others do with one etcd, and what comes of it.
// After a change that is meant, go test ./subnet/etcd -run TestStories -rewrite writes down what comes of it now.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts: %q, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			datadriven.RunTest(t, file, newStory(t).run)
		})
	}
}

// patience is how long a story waits for what it says will come.
const patience = 30 * time.Second

// story is an etcd of its own, and the hosts that use it.
type story struct {
	config etcdmember.Config
	member *etcdmember.Member
	raw    *harness // past the hosts' links
	hosts  map[string]*storyHost
	backup string // a directory; empty before there is a backup
	shown  int64  // the revision up to which the history was shown
}

// storyHost is a host of a story, under its name in the script.
type storyHost struct {
	name  string
	wire  *link // its own way to etcd
	claim subnet.Claim
	store *etcd.Store
	held  subnet.Held
	sets  <-chan subnet.Set // nil while it does not watch

	asleep  atomic.Int64         // for how long its machine was suspended, in nanoseconds
	halt    atomic.Pointer[halt] // nil unless a claim is to stop half way
	stopped *halt                // where one has stopped
	begun   chan string          // what came of it
}

// halt stops a claim between what it reads and what it writes: there it reads the clock.
type halt struct{ reached, over chan struct{} }

func newStory(t *testing.T) *story {
	s := &story{config: etcdmember.Config{DataDir: etcdmembertest.ScratchDir(t)}, hosts: map[string]*storyHost{}}
	s.member = etcdmembertest.Restart(t, s.config)
	t.Cleanup(func() { s.member.Close() })
	s.config.ListenClientURLs = s.member.Endpoints()
	s.raw = newHarness(t, etcd.Config{Endpoints: s.member.Endpoints(), Prefix: "/net"})
	return s
}

func (s *story) run(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	command, ok := s.commands()[d.Cmd]
	if !ok {
		d.Fatalf(t, "no such command: %s", d.Cmd)
	}
	return command(t, d)
}

// host returns the host that a command is about: the first word after it.
func (s *story) host(t *testing.T, d *datadriven.TestData) *storyHost {
	t.Helper()
	h := s.hosts[word(t, d, 0)]
	if h == nil {
		d.Fatalf(t, "no such host: %s", word(t, d, 0))
	}
	return h
}

// word returns what follows a command at a place.
func word(t *testing.T, d *datadriven.TestData, n int) string {
	t.Helper()
	if n >= len(d.CmdArgs) {
		d.Fatalf(t, "%s: %d words follow, want more", d.Cmd, len(d.CmdArgs))
	}
	return d.CmdArgs[n].Key
}

// values returns those of the option name=(a,b); none if it is not given.
func values(d *datadriven.TestData, name string) []string {
	for _, a := range d.CmdArgs {
		if a.Key == name {
			return a.Vals
		}
	}
	return nil
}

// option returns the value of name=value, or another text if it is not given.
func option(d *datadriven.TestData, name, otherwise string) string {
	if v := values(d, name); len(v) == 1 {
		return v[0]
	}
	return otherwise
}

func duration(t *testing.T, d *datadriven.TestData, name string) time.Duration {
	t.Helper()
	long, err := time.ParseDuration(option(d, name, "0s"))
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	return long
}

// await returns once what holds.
func await(t *testing.T, d *datadriven.TestData, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); !holds(); {
		select {
		case <-tick.C:
		case <-deadline:
			d.Fatalf(t, "after %v still not: %s", patience, what)
		}
	}
}

// start makes the host that a command describes. Host h1 is node n1, run i1, at 192.0.2.1 unless it says otherwise.
func (s *story) start(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	name := word(t, d, 0)
	number := strings.TrimPrefix(name, "h")
	h := &storyHost{name: name, wire: newLink(t, s.member.Endpoints()[0], nil)}
	h.claim.TTL = duration(t, d, "ttl")
	h.claim.Attrs = subnet.Attrs{
		Public:      ip.Dual[netip.Addr]{V4: netip.MustParseAddr(option(d, "address", "192.0.2."+number))},
		BackendType: "vxlan",
		Node:        option(d, "node", "n"+number),
		Instance:    option(d, "run", "i"+number),
		Hardware:    values(d, "hardware"),
	}
	config := s.raw.config
	config.Endpoints = []string{"http://" + h.wire.address()}
	config.RequestTimeout = time.Second
	config.AnswerTimeout = 500 * time.Millisecond
	config.ProbeInterval = 500 * time.Millisecond
	config.HoldbackTime = 2 * time.Second
	born := time.Now()
	config.Uptime = func() time.Duration {
		if halt := h.halt.Swap(nil); halt != nil {
			close(halt.reached)
			select {
			case <-halt.over:
			case <-t.Context().Done():
			}
		}
		return time.Since(born) + time.Duration(h.asleep.Load())
	}
	var err error
	if h.store, err = etcd.Open(config); err != nil {
		d.Fatalf(t, "%v", err)
	}
	t.Cleanup(func() { h.store.Close() })
	s.hosts[name] = h
	return "ok"
}

// acquire claims a lease, and tells what came of it.
func (h *storyHost) acquire(t *testing.T, claim subnet.Claim) string {
	held, err := h.store.Acquire(t.Context(), claim)
	if err != nil {
		return err.Error()
	}
	h.held = held
	return h.state()
}

// claimOf returns the claim of a command: with previous=SUBNET, and with only.
func (h *storyHost) claimOf(t *testing.T, d *datadriven.TestData) subnet.Claim {
	t.Helper()
	claim := h.claim
	claim.Only = d.HasArg("only")
	if text := option(d, "previous", ""); text != "" {
		previous, err := netip.ParsePrefix(text)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		claim.Previous.V4 = previous
	}
	return claim
}

// state is that of a lease that is held, in the words of the package comment as far as the host itself knows it.
func (h *storyHost) state() string {
	state := "confirmed"
	switch lease := h.held.Lease(); {
	case lease.Reserved:
		state = "reserved"
	case h.held.Remaining() <= 0:
		state = "unconfirmed"
	}
	return fmt.Sprintf("%s holds %s: %s", h.name, h.held.Lease().Subnets.V4, state)
}

// loss returns why a lease was lost.
func (h *storyHost) loss(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	select {
	case err := <-h.held.Lost():
		if !errors.Is(err, subnet.ErrLost) {
			d.Fatalf(t, "lost for the reason %v", err)
		}
		return err.Error()
	case <-time.After(patience):
		d.Fatalf(t, "the lease is not lost")
		return ""
	}
}

// sees returns the first view from now on that has just the given leases, of which some are held back.
func (h *storyHost) sees(t *testing.T, d *datadriven.TestData, leases, heldBack []string) string {
	t.Helper()
	var last string
	for deadline := time.After(patience); ; {
		select {
		case set := <-h.sets:
			var all, back []string
			var text strings.Builder
			for _, l := range set.Leases {
				subnet := l.Subnets.V4.String()
				all = append(all, subnet)
				fmt.Fprintf(&text, "%s of node %s", subnet, l.Attrs.Node)
				if l.HeldBack {
					back = append(back, subnet)
					text.WriteString(", held back")
				}
				text.WriteByte('\n')
			}
			for _, p := range set.Problems {
				fmt.Fprintf(&text, "problem with %s: %s\n", p.Key, p.Reason)
			}
			if last = text.String(); slices.Equal(all, leases) && slices.Equal(back, heldBack) {
				return last
			}
		case <-deadline:
			d.Fatalf(t, "no such view; the last one was\n%s", last)
		}
	}
}

// restart stops etcd, does something with its data, and starts it again at the same address.
func (s *story) restart(t *testing.T, d *datadriven.TestData, meanwhile func() error) {
	t.Helper()
	s.raw.raw.Close()
	s.member.Close()
	if err := meanwhile(); err != nil {
		d.Fatalf(t, "%v", err)
	}
	s.member = etcdmembertest.Restart(t, s.config)
	s.raw = newHarness(t, s.raw.config)
	s.shown = s.revision(t, d)
}

func (s *story) save(t *testing.T) error {
	s.backup = filepath.Join(etcdmembertest.ScratchDir(t), "backup")
	return os.CopyFS(s.backup, os.DirFS(s.config.DataDir))
}

func (s *story) restore() error {
	return errors.Join(os.RemoveAll(s.config.DataDir), os.CopyFS(s.config.DataDir, os.DirFS(s.backup)))
}
