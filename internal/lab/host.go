//go:build linux

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"tulle/internal/api"
	"tulle/internal/netns"
	"tulle/ip"
)

// Host is a machine of the lab.
type Host struct {
	*node
	// Name is "h" and the host's number, counted from 1.
	Name string
	// Segment is the number of the L3 segment that eth0 is on, counted from 1.
	Segment int
	// Addr are the addresses of eth0.
	Addr ip.Dual[netip.Addr]
	// Dir holds the host's subnet file, state, socket and log.
	Dir string
	// Containers of the host, once StartContainers has run.
	Containers []*Container

	lab    *Lab
	index  int
	daemon *process
}

func (l *Lab) newHost(index int) *Host {
	name := fmt.Sprintf("h%d", index)
	host := &Host{
		Name:    name,
		Segment: (index-1)*l.Config.Segments/l.Config.Hosts + 1,
		Dir:     filepath.Join(l.Config.Dir, name),
		lab:     l,
		index:   index,
	}
	for _, family := range l.Config.Families {
		host.Addr.Set(family, nth(segmentPrefix(family, host.Segment).Addr(), int64(index)))
	}
	return host
}

// Namespace is the host's network namespace.
func (h *Host) Namespace() *netns.Namespace { return h.ns }

// SubnetFile is the path of the file that tells the host's subnet.
func (h *Host) SubnetFile() string { return filepath.Join(h.Dir, "subnet.env") }

// Socket is the path of the daemon's API.
func (h *Host) Socket() string { return filepath.Join(h.runDir(), api.SocketName) }

func (h *Host) runDir() string { return filepath.Join(h.Dir, "run") }

func (h *Host) stateDir() string { return filepath.Join(h.Dir, "state") }

// Log is the path of the daemon's log.
func (h *Host) Log() string { return filepath.Join(h.Dir, "tulled.log") }

// StartDaemons starts tulled on every host and waits until all are ready.
func (l *Lab) StartDaemons(ctx context.Context) error {
	for _, host := range l.Hosts {
		if err := host.StartDaemon(); err != nil {
			return err
		}
	}
	for _, host := range l.Hosts {
		if err := host.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// StartDaemon starts tulled, with the state of a former run if there is one.
// Args come last on its command line.
func (h *Host) StartDaemon(args ...string) error {
	if h.daemon != nil && !h.daemon.exited() {
		return fmt.Errorf("start tulled on %s: it is running", h)
	}
	for _, dir := range []string{h.stateDir(), h.runDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("prepare tulled on %s: %w", h, err)
		}
	}
	line := []string{
		"--etcd-endpoints", h.lab.Etcd.Endpoint(h),
		"--etcd-prefix", etcdPrefix,
		"--node-id", h.Name,
		"--subnet-file", h.SubnetFile(),
		"--state-dir", h.stateDir(),
		"--run-dir", h.runDir(),
		"--ip-masq",
		"--log-level", "info",
		"--healthz-port", "0",
	}
	if !h.lab.Config.FindUplink {
		line = append(line, "--iface", uplink)
	}
	if h.lab.Etcd.authority != nil {
		files, err := h.clientCert()
		if err != nil {
			return err
		}
		line = append(line, "--etcd-cafile", files.ca, "--etcd-certfile", files.cert, "--etcd-keyfile", files.key)
	}
	line = append(line, h.lab.fastPathArgs()...)
	if h.lab.Config.DaemonArgs != nil {
		line = append(line, h.lab.Config.DaemonArgs(h)...)
	}
	var err error
	h.daemon, err = h.lab.start(h.node, "tulled", h.Log(), h.lab.Config.Tulled, append(line, args...)...)
	return err
}

// Environment makes commands that read tulled's environment, as tulle does, act
// on this host instead of on the machine that the lab runs on.
func (h *Host) Environment() []string {
	environment := []string{
		"TULLED_ETCD_ENDPOINTS=" + h.lab.Etcd.Endpoint(h),
		"TULLED_ETCD_PREFIX=" + etcdPrefix,
		"TULLED_SUBNET_FILE=" + h.SubnetFile(),
		"TULLED_STATE_DIR=" + h.stateDir(),
		"TULLED_RUN_DIR=" + h.runDir(),
		"TULLED_BPF_DIR=" + bpfDir(h.lab.Config.Dir),
	}
	if a := h.lab.Etcd.authority; a != nil {
		files := a.files(h.Dir, clientCertName)
		environment = append(environment,
			"TULLED_ETCD_CAFILE="+files.ca, "TULLED_ETCD_CERTFILE="+files.cert, "TULLED_ETCD_KEYFILE="+files.key)
	}
	return environment
}

// StopDaemon asks tulled to stop and waits for it. An exit code but 0 is an error.
func (h *Host) StopDaemon() error {
	if h.daemon == nil {
		return nil
	}
	return h.daemon.stop()
}

// KillDaemon kills tulled with SIGKILL.
func (h *Host) KillDaemon() {
	if h.daemon != nil {
		h.daemon.kill()
	}
}

// PauseDaemon stops tulled in its tracks with SIGSTOP, until ResumeDaemon.
func (h *Host) PauseDaemon() error { return h.daemon.signal(syscall.SIGSTOP) }

// ResumeDaemon lets a paused tulled go on.
func (h *Host) ResumeDaemon() error { return h.daemon.signal(syscall.SIGCONT) }

// DaemonPID is the process id of tulled, 0 if it does not run.
func (h *Host) DaemonPID() int {
	if h.daemon == nil || h.daemon.exited() {
		return 0
	}
	return h.daemon.cmd.Process.Pid
}

// WaitReady waits until tulled has a lease and the kernel equals its plan.
func (h *Host) WaitReady(ctx context.Context) error {
	reason := "not asked yet"
	err := poll(ctx, readyTimeout, func() bool {
		if h.daemon != nil && h.daemon.exited() {
			reason = "it exited: " + h.daemon.outcome()
			return true
		}
		var ready bool
		ready, reason = h.Ready(ctx)
		return ready
	})
	if err == nil && (h.daemon == nil || !h.daemon.exited()) {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("wait for tulled on %s: %w", h, context.Cause(ctx))
	}
	return fmt.Errorf("wait for tulled on %s: %s\n%s%s", h, reason, logTail(h.Log()), h.daemon.where())
}

// Ready asks tulled whether it is ready. The text is what /readyz says: what is missing, or what else there is to say.
func (h *Host) Ready(ctx context.Context) (ready bool, text string) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ready, text, err := api.NewClient(h.runDir()).Readiness(ctx)
	if err != nil {
		return false, err.Error()
	}
	return ready, text
}

// Status decodes tulled's status into v, which has the fields of it that the caller needs.
func (h *Host) Status(ctx context.Context, v any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := api.NewClient(h.runDir()).DecodeStatus(ctx, v); err != nil {
		return fmt.Errorf("status of %s: %w", h, err)
	}
	return nil
}

// Metrics returns what tulled counts, in Prometheus' text format.
func (h *Host) Metrics(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return api.NewClient(h.runDir()).Metrics(ctx)
}

const (
	readyTimeout   = 90 * time.Second // where other work fills the machine, a process may take half a minute to its first line
	requestTimeout = 5 * time.Second
	// fastPathTimeout is how long one may take to lead to containers: it looks once a second.
	fastPathTimeout = 3 * time.Second
	pollInterval    = 20 * time.Millisecond
)

// poll calls done until it returns true; the error tells why it gave up.
func poll(ctx context.Context, timeout time.Duration, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
