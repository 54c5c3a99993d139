//go:build linux

package etcd_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// commands is what can be done in a story. A host comes first: "acquire h1". Keys are named without their prefix.
func (s *story) commands() map[string]func(*testing.T, *datadriven.TestData) string {
	return map[string]func(*testing.T, *datadriven.TestData) string{
		// Hosts.
		"host":      s.start, // NAME [node=] [run=] [address=] [hardware=(a,b)] [ttl=]
		"acquire":   s.acquire,
		"begin":     s.begin,  // acquire, up to where it would write
		"finish":    s.finish, // and from there on
		"watch":     s.watch,
		"sees":      s.sees, // NAME SUBNET... [held-back=(a,b)]: waits for such a view
		"await":     s.await,
		"release":   s.release,
		"stop":      s.stop, // as a crash does: the lease stays
		"partition": s.partition,
		"mend":      s.mend,
		"suspend":   s.suspend, // NAME for=DURATION
		// Others, with etcd itself.
		"put":       s.put, // KEY [ttl=], with the value below it
		"delete":    s.delete,
		"wipe":      s.wipe,
		"compact":   s.compact,
		"backup":    s.makeBackup,
		"restore":   s.useBackup,
		"await-key": s.awaitKey, // KEY [with=TEXT]
		"await-no":  s.awaitNoKey,
		"leases":    s.leases,
		"history":   s.history, // what was written since it was shown last: a dash before each transaction
	}
}

func (s *story) acquire(t *testing.T, d *datadriven.TestData) string {
	h := s.host(t, d)
	return h.acquire(t, h.claimOf(t, d))
}

func (s *story) begin(t *testing.T, d *datadriven.TestData) string {
	h := s.host(t, d)
	claim := h.claimOf(t, d)
	halt := &halt{reached: make(chan struct{}), over: make(chan struct{})}
	h.halt.Store(halt)
	h.begun = make(chan string, 1)
	go func() { h.begun <- h.acquire(t, claim) }()
	select {
	case <-halt.reached:
	case text := <-h.begun:
		d.Fatalf(t, "the claim did not stop half way: %s", text)
	case <-time.After(patience):
		d.Fatalf(t, "the claim does not get half way")
	}
	h.stopped = halt
	return "ok"
}

func (s *story) finish(t *testing.T, d *datadriven.TestData) string {
	h := s.host(t, d)
	close(h.stopped.over)
	return <-h.begun
}

func (s *story) watch(t *testing.T, d *datadriven.TestData) string {
	h := s.host(t, d)
	h.sets = follow(t, h.store)
	return "ok"
}

func (s *story) sees(t *testing.T, d *datadriven.TestData) string {
	var leases []string
	for n, arg := range d.CmdArgs {
		if n > 0 && len(arg.Vals) == 0 {
			leases = append(leases, arg.Key)
		}
	}
	return s.host(t, d).sees(t, d, leases, values(d, "held-back"))
}

func (s *story) await(t *testing.T, d *datadriven.TestData) string {
	h, state := s.host(t, d), word(t, d, 1)
	if state == "lost" {
		return h.loss(t, d)
	}
	await(t, d, state, func() bool { return strings.HasSuffix(h.state(), ": "+state) })
	return h.state()
}

func (s *story) release(t *testing.T, d *datadriven.TestData) string {
	return result(s.host(t, d).held.Release(t.Context()))
}

func (s *story) stop(t *testing.T, d *datadriven.TestData) string {
	return result(s.host(t, d).store.Close())
}

func (s *story) partition(t *testing.T, d *datadriven.TestData) string {
	s.host(t, d).wire.cut()
	return "ok"
}

func (s *story) mend(t *testing.T, d *datadriven.TestData) string {
	s.host(t, d).wire.mend()
	return "ok"
}

func (s *story) suspend(t *testing.T, d *datadriven.TestData) string {
	s.host(t, d).asleep.Add(int64(duration(t, d, "for")))
	return "ok"
}

func (s *story) put(t *testing.T, d *datadriven.TestData) string {
	s.raw.Put(word(t, d, 0), d.Input, duration(t, d, "ttl"))
	return "ok"
}

func (s *story) delete(t *testing.T, d *datadriven.TestData) string {
	s.raw.Delete(word(t, d, 0))
	return "ok"
}

func (s *story) wipe(*testing.T, *datadriven.TestData) string {
	s.raw.Wipe()
	return "ok"
}

func (s *story) compact(t *testing.T, d *datadriven.TestData) string {
	s.raw.Compact()
	s.shown = s.revision(t, d)
	return "ok"
}

func (s *story) makeBackup(t *testing.T, d *datadriven.TestData) string {
	s.restart(t, d, func() error { return s.save(t) })
	return "ok"
}

func (s *story) useBackup(t *testing.T, d *datadriven.TestData) string {
	s.restart(t, d, s.restore)
	return "ok"
}

func (s *story) awaitKey(t *testing.T, d *datadriven.TestData) string {
	key, with := word(t, d, 0), option(d, "with", "")
	await(t, d, key+" with "+with, func() bool {
		value, _, ok := s.raw.Get(key)
		return ok && strings.Contains(value, with)
	})
	return "ok"
}

func (s *story) awaitNoKey(t *testing.T, d *datadriven.TestData) string {
	key := word(t, d, 0)
	await(t, d, "no "+key, func() bool {
		_, _, ok := s.raw.Get(key)
		return !ok
	})
	return "ok"
}

func (s *story) leases(t *testing.T, d *datadriven.TestData) string {
	r, err := s.raw.raw.Get(s.raw.ctx(), s.raw.key("subnets/"), clientv3.WithPrefix())
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	var text strings.Builder
	for _, kv := range r.Kvs {
		fmt.Fprintln(&text, s.describe(kv))
	}
	return text.String()
}

func (s *story) revision(t *testing.T, d *datadriven.TestData) int64 {
	t.Helper()
	r, err := s.raw.raw.Get(s.raw.ctx(), "/")
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	return r.Header.Revision
}

func (s *story) history(t *testing.T, d *datadriven.TestData) string {
	last := s.revision(t, d)
	if last <= s.shown {
		return "nothing was written"
	}
	var text strings.Builder
	shown := s.shown
	for r := range s.raw.raw.Watch(s.raw.ctx(), "/", clientv3.WithPrefix(), clientv3.WithRev(shown+1)) {
		if err := r.Err(); err != nil {
			d.Fatalf(t, "%v", err)
		}
		for _, e := range r.Events {
			mark := " "
			if e.Kv.ModRevision > shown {
				mark, shown = "-", e.Kv.ModRevision
			}
			if e.Type == clientv3.EventTypeDelete {
				fmt.Fprintf(&text, "%s delete %s\n", mark, s.name(e.Kv))
			} else {
				fmt.Fprintf(&text, "%s put %s\n", mark, s.describe(e.Kv))
			}
		}
		if shown >= last {
			break
		}
	}
	s.shown = shown
	return text.String()
}

// name is a key without its prefix.
func (s *story) name(kv *mvccpb.KeyValue) string {
	return strings.TrimPrefix(string(kv.Key), s.raw.config.Prefix+"/")
}

// describe says what is in a key: of a lease, whose it is.
func (s *story) describe(kv *mvccpb.KeyValue) string {
	name := s.name(kv)
	var lease struct {
		PublicIP string
		Tulle    struct{ Node, Instance string }
	}
	if !strings.HasPrefix(name, "subnets/") || json.Unmarshal(kv.Value, &lease) != nil {
		return fmt.Sprintf("%s = %s", name, kv.Value)
	}
	owner := "the host"
	if lease.Tulle.Node != "" {
		owner = fmt.Sprintf("node %s, run %s,", lease.Tulle.Node, lease.Tulle.Instance)
	}
	text := fmt.Sprintf("%s = %s at %s", name, owner, lease.PublicIP)
	if kv.Lease == 0 {
		text += ", reserved"
	}
	return text
}

// result is what a command prints that may fail.
func result(err error) string {
	if err != nil {
		return err.Error()
	}
	return "ok"
}
