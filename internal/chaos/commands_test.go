//go:build linux

package chaos

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"tulle/internal/agent"
	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/internal/trouble"
	"tulle/subnet"
)

// commands is the language of the scripts, beside that of testscript. Where a
// command takes a host, "all" stands for the five. Durations are Go's.
//
//	expect recovery=D [lossy=H,...] [gap=D]   what is allowed, and starts the streams
//	on NODE COMMAND...                        run a program on a host, container, member or router
//	fight NODE COMMAND... | peace             run a program there until peace, which ends all of them
//	cut H [etcd] | mend H                     part a host from all others, or from etcd alone
//	etcd kill|pause|resume leader|NAME...     a member; also: start, stop, restart, wipe, configure, compact,
//	                                          save, load, move PORT, release (the lease of h6)
//	tulled H start|stop|kill|pause|resume|restart [FLAG...]
//	version NAME                              what is started from now on: "next", built when first asked for, or "this"
//	leave H newer|older                       make its state files what such a version would have left
//	certificate H D                           give it a certificate that expires after D
//	restore H                                 put back the addresses and routes of its uplink
//	links H N                                 make and delete N links
//	hold D                                    let the streams run
//	rest H                                    wait until its daemon has made no pass for a second
//	status H FIELD=REGEXP [D]                 wait until tulled says so
//	owner H of=H [D]                          wait until the first holds the subnet that the second leased
//	logged H REGEXP [D]                       wait until its log has such a line since the script began
//	flow D                                    wait until every stream delivers packets
//	recover                                   wait until all is as before; weigh what was lost; ends the streams
//	lines H MIN..MAX REGEXP                   count the lines of its log since the script began
func commands() map[string]func(*testscript.TestScript, bool, []string) {
	all := map[string]func(*row, []string) error{
		"expect": (*row).expect, "on": (*row).on, "fight": (*row).fight, "peace": func(r *row, _ []string) error { return r.peace() },
		"cut": (*row).cut, "mend": (*row).mend, "etcd": (*row).etcd,
		"tulled": (*row).tulled, "version": (*row).version, "leave": (*row).leave,
		"certificate": (*row).certificate, "links": (*row).links, "restore": (*row).restore,
	}
	// These only look: recovery is counted from the end of the last that acts.
	watching := map[string]func(*row, []string) error{
		"hold": (*row).hold, "rest": (*row).rest, "status": (*row).await, "owner": (*row).owner, "logged": (*row).hasLogged, "lines": (*row).lines,
		"flow": (*row).flow, "recover": func(r *row, _ []string) error { return r.recover() },
	}
	script := make(map[string]func(*testscript.TestScript, bool, []string))
	add := func(name string, run func(*row, []string) error, acts bool) {
		script[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			r := ts.Value(rowKey{}).(*row)
			r.log = ts.Logf
			err := run(r, args)
			if acts {
				r.step = time.Now()
			}
			if neg && err == nil {
				err = fmt.Errorf("%s %s succeeded, want a failure", name, strings.Join(args, " "))
			} else if neg {
				err = nil
			}
			if err != nil {
				r.outcome.err = err
				ts.Fatalf("%v", err)
			}
		}
	}
	for name, run := range all {
		add(name, run, true)
	}
	for name, run := range watching {
		add(name, run, false)
	}
	return script
}

func (r *row) expect(args []string) (err error) {
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "recovery":
			r.recovery, err = time.ParseDuration(value)
		case "gap":
			r.gap, err = time.ParseDuration(value)
		case "lossy":
			r.lossy = strings.Split(value, ",")
		default:
			err = fmt.Errorf("%q is not recovery, gap or lossy", name)
		}
		if err != nil {
			return err
		}
	}
	r.recovery, r.gap = labtest.Limit(r.recovery), labtest.Limit(r.gap)
	return r.startStreams()
}

func (r *row) on(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("want a node and a command, got %q", args)
	}
	return r.w.run(args[0], args[1], args[2:]...)
}

// each calls do for the host of that name, or for all.
func (r *row) each(name string, do func(*lab.Host) error) error {
	if name != "all" {
		host, err := r.host(name)
		if err != nil {
			return err
		}
		return do(host)
	}
	for _, host := range r.w.hosts {
		if err := do(host); err != nil {
			return err
		}
	}
	return nil
}

func (r *row) host(name string) (*lab.Host, error) {
	host := r.w.lab.Host(name)
	if host == nil {
		return nil, fmt.Errorf("no host %q", name)
	}
	return host, nil
}

func (r *row) tulled(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("want a host and what to do, got %q", args)
	}
	return r.each(args[0], func(host *lab.Host) error {
		switch args[1] {
		case "start":
			return host.StartDaemon(args[2:]...)
		case "stop":
			return host.StopDaemon()
		case "kill":
			host.KillDaemon()
			return nil
		case "pause":
			return host.PauseDaemon()
		case "resume":
			return host.ResumeDaemon()
		case "restart":
			if err := host.StopDaemon(); err != nil {
				return err
			}
			if err := host.StartDaemon(args[2:]...); err != nil {
				return err
			}
			return host.WaitReady(r.w.t.Context())
		}
		return fmt.Errorf("%q is nothing that tulled does", args[1])
	})
}

func (r *row) certificate(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("want a host and a duration, got %q", args)
	}
	life, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	return r.each(args[0], func(host *lab.Host) error { return host.RenewClientCert(life) })
}

func (r *row) hold(args []string) error {
	d, err := within(args, 0)
	if err != nil {
		return err
	}
	select {
	case <-time.After(d):
	case <-r.w.t.Context().Done():
	}
	return nil
}

// rest waits until nothing wakes the daemon of a host, so that what is done next is all that does.
func (r *row) rest(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want a host, got %q", args)
	}
	return r.each(args[0], func(host *lab.Host) error {
		var last agent.Work
		since := time.Now()
		return r.w.await(convergeTimeout, func() error {
			status, err := r.w.status(host)
			if err != nil {
				return err
			}
			if status.Work != last {
				last, since = status.Work, time.Now()
			}
			if time.Since(since) < time.Second {
				return fmt.Errorf("%s is not at rest: %+v", host, last)
			}
			return nil
		})
	})
}

// within is the duration at args[i], 10 s if it is left out.
func within(args []string, i int) (time.Duration, error) {
	if len(args) <= i {
		return 10 * time.Second, nil
	}
	return time.ParseDuration(args[i])
}

func (r *row) await(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("want a host and FIELD=REGEXP, got %q", args)
	}
	timeout, err := within(args, 2)
	if err != nil {
		return err
	}
	name, pattern, _ := strings.Cut(args[1], "=")
	want, err := regexp.Compile("^(?:" + pattern + ")$")
	if err != nil {
		return err
	}
	return r.each(args[0], func(host *lab.Host) error {
		return r.w.await(timeout, func() error {
			status, err := r.w.status(host)
			if err != nil {
				return err
			}
			value, err := field(status, name)
			if err == nil && !want.MatchString(value) {
				err = fmt.Errorf("status of %s: %s is %q, want %q", host, name, value, pattern)
			}
			return err
		})
	})
}

// field is one field of a status as text.
func field(status agent.Status, name string) (string, error) {
	switch name {
	case "ready":
		return fmt.Sprint(status.Ready), nil
	case "reason":
		return status.Reason, nil
	case "held":
		return fmt.Sprint(status.Of("").Lease != nil && status.Of("").Lease.Held), nil
	case "store":
		return strings.Join(status.Troubles.Texts(trouble.StoreUnreachable), "; "), nil
	case "contested":
		return strings.Join(status.Troubles.Texts(trouble.KernelContested), "; "), nil
	case "peers":
		return fmt.Sprint(len(status.Of("").Peers)), nil
	}
	return "", fmt.Errorf("a status has no field %q", name)
}

func (r *row) owner(args []string) error {
	if len(args) < 2 || !strings.HasPrefix(args[1], "of=") {
		return fmt.Errorf("want HOST of=HOST, got %q", args)
	}
	of, err := r.host(strings.TrimPrefix(args[1], "of="))
	if err != nil {
		return err
	}
	timeout, err := within(args, 2)
	if err != nil {
		return err
	}
	env, err := of.ReadSubnetFile()
	if err != nil {
		return err
	}
	return r.w.await(timeout, func() error {
		if node := r.w.history.owner(env.Subnets); node != args[0] {
			return fmt.Errorf("subnet %s is held by %q, want %s", subnet.KeyOf(env.Subnets), node, args[0])
		}
		return nil
	})
}

func (r *row) hasLogged(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("want a host and a pattern, got %q", args)
	}
	timeout, err := within(args, 2)
	if err != nil {
		return err
	}
	want, err := regexp.Compile(args[1])
	if err != nil {
		return err
	}
	return r.each(args[0], func(host *lab.Host) error {
		return r.w.await(timeout, func() error {
			text, err := r.logged(host)
			if err == nil && !want.MatchString(text) {
				err = fmt.Errorf("log of %s has no line with %q:\n%s", host, args[1], text)
			}
			return err
		})
	})
}

// lines waits for the fewest: the line may come a moment after what it tells.
func (r *row) lines(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("want a host, MIN..MAX and a pattern, got %q", args)
	}
	var least, most int
	if _, err := fmt.Sscanf(args[1], "%d..%d", &least, &most); err != nil {
		return fmt.Errorf("%q is not MIN..MAX: %w", args[1], err)
	}
	want, err := regexp.Compile("(?m)^.*(?:" + args[2] + ").*$")
	if err != nil {
		return err
	}
	return r.each(args[0], func(host *lab.Host) error {
		return r.w.await(time.Second, func() error {
			text, err := r.logged(host)
			if n := len(want.FindAllString(text, -1)); err == nil && (n < least || n > most) {
				err = fmt.Errorf("log of %s has %d lines with %q, want %s:\n%s", host, n, args[2], args[1], text)
			}
			return err
		})
	})
}

func (r *row) flow(args []string) error {
	timeout, err := within(args, 0)
	if err != nil {
		return err
	}
	before := make([]int, len(r.streams))
	for i, s := range r.streams {
		before[i] = s.Received()
	}
	return r.w.await(timeout, func() error {
		for i, s := range r.streams {
			if s.Received() < before[i]+perSecond()/10 {
				return fmt.Errorf("stream %v does not flow", s)
			}
		}
		return nil
	})
}
