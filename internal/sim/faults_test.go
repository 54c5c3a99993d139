package sim

import (
	"fmt"
	"strings"
	"time"

	"tulle/subnet/subnettest"
)

// on makes an event of something that happens to one host.
func (d dice) on(at time.Duration, h int, text string, do func(*host)) {
	d.add(at, fmt.Sprintf("h%d: %s", h+1, text), func(f *fleet) { do(f.hosts[h]) })
}

// during makes two events: a connection that gets worse and good again.
func (d dice) during(at time.Duration, h int, text string, change func(w *subnettest.Connection, bad bool)) {
	spell := d.spell()
	d.on(at, h, fmt.Sprintf("%s for %v", text, spell), func(h *host) { h.setConnection(func(w *subnettest.Connection) { change(w, true) }) })
	d.on(at+spell, h, "no longer "+text, func(h *host) { h.setConnection(func(w *subnettest.Connection) { change(w, false) }) })
}

func (d dice) crash(at time.Duration, h int) {
	d.on(at, h, "the daemon crashes", (*host).crash)
	if d.IntN(4) == 0 {
		d.on(at, h, "its state directory is lost", (*host).loseState)
	}
	d.on(at+d.spell(), h, "the daemon starts", (*host).start)
}

func (d dice) crashMidway(at time.Duration, h int) {
	n := d.IntN(6)
	d.on(at, h, fmt.Sprintf("the daemon will crash after %d operations of its next plan", n), func(h *host) {
		if h.proc != nil {
			h.proc.setFuse(n)
		}
	})
	d.tamper(at+time.Duration(d.IntN(1000))*time.Millisecond, h)
	d.on(at+5*time.Second+d.spell(), h, "the daemon starts", func(h *host) {
		h.crash()
		h.start()
	})
}

func (d dice) crashUnanswered(at time.Duration, h int) {
	d.on(at, h, "the daemon restarts, and its requests go unanswered", func(h *host) {
		h.crash()
		h.setConnection(func(w *subnettest.Connection) { w.NoAnswers = true })
		h.start()
	})
	d.on(at+time.Duration(d.IntN(2000))*time.Millisecond, h, "the daemon crashes", (*host).crash)
	d.on(at+d.spell(), h, "the daemon starts", func(h *host) {
		h.setConnection(func(w *subnettest.Connection) { w.NoAnswers = false })
		h.start()
	})
}

func (d dice) reboot(at time.Duration, h int) {
	d.on(at, h, "the machine goes down", (*host).reboot)
	if d.IntN(4) == 0 {
		d.on(at, h, "its state directory is lost", (*host).loseState)
	}
	d.on(at+d.spell(), h, "the machine comes up", (*host).start)
}

// rebootAlone reboots a machine that cannot reach the store: it starts from what it kept.
func (d dice) rebootAlone(at time.Duration, h int) {
	spell := 20*time.Second + d.spell()
	d.on(at, h, fmt.Sprintf("the machine goes down, and is cut off from the store for %v", spell), func(h *host) {
		h.setConnection(func(w *subnettest.Connection) { w.Cut = true })
		h.reboot()
	})
	d.on(at+time.Second, h, "the machine comes up", (*host).start)
	d.on(at+11*time.Second, h, "should be forwarding again", (*host).forwards)
	d.on(at+spell, h, "no longer cut off from the store", func(h *host) { h.setConnection(func(w *subnettest.Connection) { w.Cut = false }) })
}

func (d dice) cut(at time.Duration, h int) {
	d.during(at, h, "cut off from the store", func(w *subnettest.Connection, bad bool) { w.Cut = bad })
}

func (d dice) unreachable(at time.Duration, h int) {
	d.during(at, h, "without news from the store", func(w *subnettest.Connection, bad bool) { w.NoEvents = bad })
}

func (d dice) mute(at time.Duration, h int) {
	d.during(at, h, "without answers from the store", func(w *subnettest.Connection, bad bool) { w.NoAnswers = bad })
}

func (d dice) lagging(at time.Duration, h int) {
	lag := time.Duration(d.IntN(20000)) * time.Millisecond
	d.during(at, h, fmt.Sprintf("seeing the store as it was %v ago", lag), func(w *subnettest.Connection, bad bool) {
		if w.Lag = 0; bad {
			w.Lag = lag
		}
	})
}

func (d dice) stopped(at time.Duration, h int) {
	spell := d.spell()
	d.on(at, h, fmt.Sprintf("the daemon is stopped for %v", spell), func(h *host) { h.setStopped(true) })
	d.on(at+spell, h, "the daemon goes on", func(h *host) { h.setStopped(false) })
}

func (d dice) outage(at time.Duration, _ int) {
	spell := d.spell()
	d.add(at, fmt.Sprintf("the store is down for %v", spell), func(f *fleet) { f.setDown(true) })
	d.add(at+spell, "the store is up", func(f *fleet) { f.setDown(false) })
}

func (d dice) move(at time.Duration, h int) {
	d.on(at, h, "gets another address", (*host).move)
}

func (d dice) tamper(at time.Duration, h int) {
	kind, n := d.IntN(len(tamperings())), d.Int()
	d.on(at, h, tamperings()[kind].text, func(h *host) { tamperings()[kind].do(h, n) })
}

func (d dice) save(at time.Duration, _ int) { d.add(at, "the store is saved", (*fleet).backup) }

func (d dice) wipe(at time.Duration, _ int) {
	d.add(at, "all keys are deleted", func(f *fleet) {
		f.lost()
		f.store.Wipe()
	})
	d.add(at+10*time.Second+time.Duration(d.Int64N(int64(time.Minute))), "the configuration is written again", (*fleet).configure)
}

func (d dice) restore(at time.Duration, _ int) {
	n := d.IntN(8)
	d.add(at, "an earlier backup is restored", func(f *fleet) {
		f.lost()
		f.store.Restore(f.backups[n%len(f.backups)])
	})
	d.add(at+10*time.Second+time.Duration(d.Int64N(int64(time.Minute))), "the configuration is written again", (*fleet).configure)
}

// reform writes another configuration, and restarts some hosts with it.
func (d dice) reform(at time.Duration, h int) {
	next := []string{
		strings.Replace(d.config, `{"Type":`, `{"VNI":7,"Type":`, 1),
		strings.Replace(strings.Replace(d.config, "10.5.", "10.6.", 2), "fc00:5:", "fc00:6:", 2),
		strings.Replace(d.config, `"vxlan"`, `"host-gw"`, 1),
		"{", `{"Network":"10.5.0.0/16","SubnetLen":12}`,
	}[d.IntN(5)]
	d.add(at, "the configuration becomes "+next, func(f *fleet) {
		f.reform()
		f.store.Put("config", next, 0)
	})
	d.crash(at+time.Second, h)
	d.add(at+d.spell(), "the configuration becomes what it was", (*fleet).configure)
}

func (d dice) clone(at time.Duration, h int) {
	d.add(at, fmt.Sprintf("a clone of h%d starts", h+1), func(f *fleet) { f.clone(f.hosts[h]) })
}

func (d dice) poison(at time.Duration, h int) {
	kind := d.IntN(len(poisons(0)))
	key, value := poisons(d.IntN(8))[kind][0], poisons(h + 1)[kind][1]
	d.add(at, fmt.Sprintf("key %s becomes %.80s", key, value), func(f *fleet) { f.poison(key, value) })
	if d.IntN(2) == 0 {
		d.add(at+d.spell(), fmt.Sprintf("key %s is deleted", key), func(f *fleet) { f.store.Delete(key) })
	}
}

// poisons are keys that nobody should write, with a value each. n chooses a subnet or a host.
func poisons(n int) [][2]string {
	lease := func(public, mac string) string {
		return fmt.Sprintf(`{"PublicIP":%q,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":%q}}`, public, mac)
	}
	stranger := lease("172.30.0.251", "02:00:00:00:00:66")
	return [][2]string{
		{"subnets/README", "x"},
		{"subnets-x", "x"},
		{"subnets/0.0.0.0-0", stranger},
		{"subnets/10.5.0.0-17", stranger},
		{fmt.Sprintf("subnets/10.5.%d.0-23", n&^1), stranger},
		{"subnets/172.30.0.0-24", stranger},
		{"subnets/169.254.0.0-24", stranger},
		{"subnets/10.9.0.0-24", stranger},
		{fmt.Sprintf("subnets/10.5.%d.128-25", n), stranger},
		{fmt.Sprintf("subnets/10.5.%d.0-24", n), stranger},
		{fmt.Sprintf("subnets/10.5.%d.0-24", n), "{"},
		{fmt.Sprintf("subnets/10.5.%d.0-24", n), strings.Repeat("x", 1<<16)},
		{fmt.Sprintf("subnets/10.5.%d.0-24", n), lease(fmt.Sprintf("172.30.0.%d", n), "ff:ff:ff:ff:ff:ff")},
		{fmt.Sprintf("subnets/10.5.%d.0-24", n), lease("0.0.0.0", "00:00:00:00:00:00")},
	}
}
