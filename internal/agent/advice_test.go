package agent

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/fabric"
	"tulle/internal/trouble"
	"tulle/ip"
)

// In a container whose /proc/sys is read-only, what is nice to have is told and what is needed is missed.
func TestSettingsThatCannotBeWritten(t *testing.T) {
	forwards := []ip.Op{
		{Verb: ip.Add, New: ip.Sysctl{Key: "net/ipv4/ip_forward", Value: "1"}},
		{Verb: ip.Add, New: ip.Sysctl{Key: "net/ipv6/conf/all/forwarding", Value: "1"}},
	}
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		for _, h := range w.hosts[:2] {
			h.kernel.Fix()
		}
		for _, h := range w.hosts[1:] {
			h.external(forwards...)
		}
		h, log := w.hosts[1], &lines{}
		h.log = log.handler()
		w.start()
		w.within(soon, "settled", func(o *node) bool {
			st := o.agent.Status()
			return len(st.Of("").Peers) == 2 && st.Ready == (o != w.hosts[0])
		})
		for _, want := range []string{"net/ipv4/ip_forward is 0", "run sysctl -w net/ipv4/ip_forward=1 on the host", "/proc/sys", "net/ipv6/conf/all/forwarding"} {
			if st := w.hosts[0].agent.Status(); !strings.Contains(st.Reason, want) {
				t.Errorf("reason %q, want %q in it", st.Reason, want)
			}
		}
		// accept_ra is 0 in this kernel already.
		st := h.agent.Status()
		if advice := h.texts(trouble.SettingAdvised); len(advice) != 1 || !strings.Contains(advice[0], "net/ipv6/conf/flannel.1/disable_ipv6") {
			t.Errorf("advice %q, want one about disable_ipv6", advice)
		}
		if drift := h.drift(); len(drift) != 1 || !strings.Contains(drift[0].String(), "disable_ipv6=1") {
			t.Errorf("plan %q, want the setting alone", drift)
		}

		work := st.Work
		w.store.Put("subnets/10.5.77.0-24&fc00:5:0:77::-64", `{"PublicIP":"172.30.0.77","PublicIPv6":"fd30::77","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:77"},"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:06:77"}}`, 0)
		w.within(soon, "followed", func(o *node) bool { return len(o.agent.Status().Of("").Peers) == 3 })
		if now := h.agent.Status().Work; now.Incremental == work.Incremental {
			t.Errorf("a lease that came took full passes: %+v, then %+v", work, now)
		}
		work = h.agent.Status().Work
		<-time.After(time.Hour)
		synctest.Wait()
		now := h.agent.Status().Work
		if now.Changes != work.Changes || now.Passes-work.Passes > uint64(time.Hour/resyncEvery)+5 {
			t.Errorf("an hour at rest: %+v, then %+v, want no changes and no more than the passes that are due", work, now)
		}
		if n := strings.Count(log.String(), "disable_ipv6"); n > 2 { // the first change and the advice
			t.Errorf("%d lines about the setting:\n%s", n, log)
		}
		if st := h.agent.Status(); st.Violated > 0 || len(h.drift()) != 1 {
			t.Errorf("violations %v, %d of them, drift %v", h.texts(trouble.Fault), st.Violated, h.drift())
		}
		w.hosts[0].external(forwards...)
		w.within(time.Minute, "ready once the host forwards", func(o *node) bool { return o.agent.Status().Ready })
	})
}

// A security module may refuse what the mount allows.
func TestSettingsThatAreRefused(t *testing.T) {
	simulate(t, dualConfig, 1, func(t *testing.T, w *world) {
		w.hosts[0].kernel.Refuse(func(op ip.Op) error {
			if s, ok := op.New.(ip.Sysctl); ok && s.Optional {
				return fabric.ErrUnconfirmed
			}
			return nil
		})
		w.start()
		w.within(soon, "ready", func(h *node) bool { return h.agent.Status().Ready && len(h.texts(trouble.SettingAdvised)) == 1 })
	})
}

func TestNewNodeIDIsReported(t *testing.T) {
	simulate(t, dualConfig, 1, func(t *testing.T, w *world) {
		h, log := w.hosts[0], &lines{}
		h.log = slog.Handler(log.handler())
		h.change = func(c *Config) { c.NewNode = true }
		w.start()
		w.converged(soon)
		<-time.After(time.Hour)
		synctest.Wait()
		if advice := h.texts(trouble.NodeRandom); len(advice) != 1 || !strings.Contains(advice[0], "/etc/machine-id") {
			t.Errorf("advice %q, want what to mount", advice)
		}
		if n := strings.Count(log.String(), "/etc/machine-id"); n != 1 {
			t.Errorf("%d lines about it, want one:\n%s", n, log)
		}
	})
}
