// Command tulled leases this host a subnet from etcd and keeps the kernel forwarding to those of the other hosts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"tulle/internal/agent"
	"tulle/internal/api"
	"tulle/internal/atomicfile"
	"tulle/internal/backends"
	"tulle/internal/decision"
	"tulle/internal/fabric"
	"tulle/internal/identity"
	"tulle/internal/logtail"
	"tulle/ip/kernel"
	"tulle/subnet"
	"tulle/subnet/etcd"
	"tulle/subnet/flannel"
)

// version is set when the binary is linked.
var version = "dev"

// Exit codes.
const (
	exitStopped = 0
	exitFailed  = 1
	exitUsage   = 2
)

// logKept is how much of the log is kept for who asks for it over the socket, in bytes.
const logKept = 256 << 10

// socketRetry is how often a socket that could not be made is tried again.
const socketRetry = 5 * time.Second

func main() {
	if tryBPF(os.Args) {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	opts, err := parse(args, lookup, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitStopped
	case err != nil:
		fmt.Fprintf(stderr, "tulled: %v\nRun tulled --help for the flags.\n", err)
		return exitUsage
	case opts.version:
		fmt.Fprintln(stdout, version)
		return exitStopped
	}
	tail := logtail.New(logKept)
	log := opts.logger(io.MultiWriter(tail, stderr))
	if err := serve(ctx, opts, log, tail.Lines); err != nil && ctx.Err() == nil {
		log.Error("stopped", "err", err)
		return exitFailed
	}
	return exitStopped
}

// serve wires the parts together and runs them until ctx ends or one of them fails.
func serve(ctx context.Context, opts options, log *slog.Logger, logged func() []byte) error {
	started := collectRarely()
	node, made, err := identity.NodeID(opts.nodeID, "/etc/machine-id", opts.stateDir)
	if err != nil {
		return err
	}
	instance, unkept, err := identity.Instance(opts.runDir)
	if err != nil {
		return err
	}
	asked, keyUnkept, err := askedAt(opts.probe, opts.runDir)
	if err != nil {
		return err
	}
	socket, err := api.ListenSocket(ctx, opts.runDir)
	if err != nil && !atomicfile.Unwritable(err) {
		return err
	}
	if socket != nil {
		defer socket.Close()
	}
	if unwritable := errors.Join(unkept, keyUnkept, err); unwritable != nil {
		log.Warn("the run directory cannot be written: make it writable, or give another with --run-dir", "err", unwritable)
	}
	krn, err := kernel.Open()
	if err != nil {
		return err
	}
	defer krn.Close()
	store, err := etcd.Open(opts.store(log))
	if err != nil {
		return err
	}
	defer store.Close()
	fast := sync.OnceValue(func() fastPath {
		f := openFastPath(opts, log)
		if f.bpf {
			krn.UseBPF(f.programs)
		}
		return f
	})
	var a *agent.Agent
	systemd := notifier{socket: opts.notifySocket, log: log}
	a, err = agent.New(agent.Config{
		Version: version, Kernel: krn, Log: log, Uplink: opts.uplink, StateDir: opts.stateDir, RunDir: opts.runDir,
		Host:    fabric.Host{Node: node, Instance: instance, Hardware: identity.Hardware("/sys")},
		NewNode: made,
		Networks: []fabric.Config{{
			Store: store, Backends: backends.All(), SubnetFile: opts.subnetFile,
			Keys: fabric.Keys{Endpoints: opts.endpointList(), Config: store.ConfigKey(), Leases: store.LeaseDir()},
			Options: decision.Options{
				IPMasq: opts.ipMasq, PeerFilter: opts.peerFilter, SourceCheck: opts.sourceCheck, FastPathExclude: opts.fastPathExclude,
			},
			Probe: asked, Answer: answers(opts, func() *agent.Agent { return a }),
			Lease:   fabric.LeaseOptions{TTL: opts.leaseTTL, Renumber: opts.renumber, Previous: previous(opts.subnetFile, log)},
			Trouble: store.Trouble, Expiry: store.CertificateExpiry, Reached: store.Addresses, Resolvers: func() []netip.Addr { return resolvers(resolvConf) },
		}},
		FastPath: func() agent.OpenedFastPath { return fast().ofAgent() }, FastPathRequired: opts.fastPath == fastPathOn,
		Prober: newProber(opts.probe, log),
		CPU:    cpuTime, Calls: krn.Calls, Beat: systemd.beat,
		Changed: func(st agent.Status) {
			if st.Ready {
				started()
			}
			systemd.status(st)
		},
	})
	if err != nil {
		return err
	}
	log.Info("starting", "version", version, "node", node)
	defer func() { fast().close(log) }()

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.Run(ctx) })
	g.Go(func() error { return serveSocket(ctx, socket, opts.runDir, a, fast, log, logged) })
	if opts.healthPort != 0 {
		g.Go(func() error { return serveHealth(ctx, opts, a, log) })
	}
	err = g.Wait()
	systemd.stopping()
	return err
}

// serveSocket answers those that may know all, once there can be a socket: without one the host forwards all the same.
func serveSocket(ctx context.Context, socket net.Listener, runDir string, a *agent.Agent, fast func() fastPath, log *slog.Logger, logged func() []byte) error {
	for socket == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(socketRetry):
		}
		var err error
		if socket, err = api.ListenSocket(ctx, runDir); err != nil && !atomicfile.Unwritable(err) {
			return err
		}
	}
	return api.Serve(ctx, socket, api.Full(a, a, fast().ofAPI(), logged), log)
}

// serveHealth answers probes over TCP.
func serveHealth(ctx context.Context, opts options, a *agent.Agent, log *slog.Logger) error {
	addr := net.JoinHostPort(opts.healthIP.String(), strconv.Itoa(int(opts.healthPort)))
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for health checks (--healthz-ip, --healthz-port): %w", err)
	}
	return api.Serve(ctx, l, api.Health(a), log)
}

// previous is the subnet that the subnet file names: what a flanneld on this host held last.
func previous(path string, log *slog.Logger) subnet.Subnets {
	env, err := flannel.ReadEnv(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("subnet file passed over", "err", err)
	}
	return env.Subnets
}
