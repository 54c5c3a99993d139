package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/fabric"
	"tulle/ip"
	"tulle/ip/iptest"
)

func TestTamperingHeals(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		dev := h.link("flannel.1")
		down, otherMAC, port, silent := dev, dev, dev, dev
		down.Up, port.Master, silent.NoARP = false, "br7", true
		otherMAC.MAC[5]++
		was := h.owned()
		for name, op := range map[string]ip.Op{
			"route deleted":     {Verb: ip.Delete, Old: was.Routes[0]},
			"neighbour deleted": {Verb: ip.Delete, Old: was.Neighbors[0]},
			"entry deleted":     {Verb: ip.Delete, Old: was.FDB[0]},
			"address deleted":   {Verb: ip.Delete, Old: was.Addrs[0]},
			"table deleted":     {Verb: ip.Delete, Old: was.Tables[0]},
			"guard deleted":     {Verb: ip.Delete, Old: was.Guards[0]},
			"peer shut out":     {Verb: ip.Delete, Old: ip.Member{Peer: was.Guards[1].Peers[0]}},
			"stranger let in":   {Verb: ip.Add, New: ip.Member{Peer: ip.Peer{Addr: netip.MustParseAddr("192.0.2.66")}}},
			"link down":         {Verb: ip.Replace, Old: dev, New: down},
			"link deleted":      {Verb: ip.Delete, Old: dev},
			"made a port":       {Verb: ip.Replace, Old: dev, New: port},
			"silent":            {Verb: ip.Replace, Old: dev, New: silent},
			"MAC changed":       {Verb: ip.Replace, Old: dev, New: otherMAC},
		} {
			t.Log(name)
			h.external(op)
			w.converged(2 * time.Second)
			if diff := cmp.Diff(was.String(), h.owned().String()); diff != "" {
				t.Errorf("%s: healed to another state:\n%s", name, diff)
			}
		}
	})
}

func TestSysctlHealsByResync(t *testing.T) {
	simulate(t, dualConfig, 1, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		off := ip.Sysctl{Key: "net/ipv4/ip_forward", Value: "0"}
		h.external(ip.Op{Verb: ip.Replace, New: off, Old: off})
		w.converged(resyncEvery + soon)
	})
}

func TestRefusedOperationCostsOnlyItself(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		h := w.hosts[0]
		var bad netip.Prefix
		h.kernel.Refuse(func(op ip.Op) error {
			r, ok := op.New.(ip.Route)
			if ok && !bad.IsValid() {
				bad = r.Dst
			}
			if ok && r.Dst == bad {
				return errors.New("no buffer space available")
			}
			return nil
		})
		w.start()
		w.within(time.Minute, "the others converge", func(o *node) bool {
			st := o.agent.Status()
			return len(st.Of("").Peers) == 2 && (st.Ready || o == h && len(h.drift()) == 1)
		})
		if st := h.agent.Status(); !strings.Contains(st.Reason, bad.String()) || !strings.Contains(st.Reason, "no buffer space") {
			t.Errorf("reason %q, want the route and the error", st.Reason)
		}
		if _, err := os.Stat(filepath.Join(h.dir, "subnet.env")); err != nil {
			t.Error(err)
		}
		h.kernel.Refuse(nil)
		w.converged(time.Minute)
	})
}

// opponent is a kernel on which another program undoes at once what the agent does.
type opponent struct {
	*iptest.Kernel
	t    *testing.T
	undo func(ip.Op) bool
}

func (r opponent) Apply(ctx context.Context, plan ip.Plan) error {
	err := r.Kernel.Apply(ctx, plan)
	for _, op := range plan {
		if op.New != nil && r.undo(op) {
			if err := r.External(ip.Plan{{Verb: ip.Delete, Old: op.New}}); err != nil {
				r.t.Error(err)
			}
		}
	}
	return err
}

// lines keeps what is logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) handler() slog.Handler { return slog.NewTextHandler(l, nil) }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) count() int { return strings.Count(l.String(), "\n") }

func TestContestIsReportedAndCostsLittle(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		var log lines
		h := w.hosts[0]
		h.log = log.handler()
		h.change = func(c *Config) {
			c.Kernel = opponent{h.kernel, t, func(op ip.Op) bool { _, isRoute := op.New.(ip.Route); return isRoute }}
		}
		w.start()
		w.within(soon, "told", func(o *node) bool {
			return o != h || strings.Contains(h.agent.Status().Reason, "something else keeps changing the kernel; what had to be done again: ip route replace 10.5.")
		})
		synctest.Wait()
		before := h.passes.Load()
		<-time.After(time.Hour)
		synctest.Wait()
		if n := h.passes.Load() - before; n > 6000 {
			t.Errorf("%d passes in an hour", n)
		}
		if n := log.count(); n > 150 {
			t.Errorf("%d lines in an hour:\n%.2000s", n, log.String())
		}
	})
}

func TestRefusalForEverCostsLittle(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		var log lines
		h := w.hosts[0]
		h.log = log.handler()
		h.kernel.Refuse(func(op ip.Op) error {
			if _, ok := op.New.(ip.Neighbor); ok {
				return errors.New("no buffer space available")
			}
			return nil
		})
		w.start()
		<-time.After(time.Hour)
		synctest.Wait()
		if passes := h.passes.Load(); passes < 200 || passes > 600 {
			t.Errorf("%d passes in an hour, want one about every %v", passes, fabric.RetryMost)
		}
		if n := log.count(); n > 100 {
			t.Errorf("%d lines in an hour:\n%.2000s", n, log.String())
		}
		h.kernel.Refuse(nil)
		w.converged(2 * fabric.RetryMost)
	})
}

// Whatever operation a stop interrupts, the next start finishes the work.
func TestStopDuringApply(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		was := h.owned()
		for n := 1; ; n++ {
			h.stop()
			for _, l := range was.Links {
				h.external(ip.Op{Verb: ip.Delete, Old: l})
			}
			ops, interrupted := 0, false
			h.kernel.Refuse(func(ip.Op) error {
				if ops++; ops == n {
					interrupted = true
					h.cancel()
				}
				return nil
			})
			h.start()
			<-time.After(soon)
			h.kernel.Refuse(nil)
			if !interrupted {
				break
			}
			h.stop()
			h.start()
			w.converged(soon)
			if diff := cmp.Diff(was.String(), h.owned().String()); diff != "" {
				t.Fatalf("interrupted at operation %d, then another state:\n%s", n, diff)
			}
		}
	})
}
