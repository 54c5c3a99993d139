package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"regexp"
	"time"

	"tulle/internal/settings"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/etcd"
)

// options are the daemon's settings. Flags have flannel's names wherever they mean the same.
type options struct {
	endpoints   string
	etcd        etcd.Config
	uplink      ip.UplinkChoice
	nodeID      string
	ipMasq      bool
	peerFilter  bool
	sourceCheck bool
	probe       bool
	answer      bool
	renumber    bool

	fastPath        string // one of the modes
	fastPathExclude []netip.Prefix
	fastPathLife    time.Duration
	bpfDir          string

	leaseTTL time.Duration
	version  bool
	logLevel slog.Level
	json     bool

	subnetFile, stateDir, runDir string
	healthIP                     netip.Addr
	healthPort                   uint16
	notifySocket                 string
}

const helpText = `tulled leases this host a subnet from etcd, writes it to the subnet file and forwards to the other hosts' containers.
It runs until it is stopped, and then leaves forwarding as it is. Exit codes: 0 stopped, 1 failed, 2 bad usage.

Every flag has an environment variable: --some-flag is TULLED_SOME_FLAG, else FLANNELD_SOME_FLAG. Flags:`

// parse reads the command line, and the environment for flags that it lacks: TULLED_X, else FLANNELD_X.
func parse(args []string, lookup func(string) (string, bool), help io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("tulled", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	o.define(fs)
	if err := fs.Parse(args); err != nil {
		if err == flag.ErrHelp {
			fs.SetOutput(help)
			fmt.Fprintln(help, helpText)
			fs.PrintDefaults()
		}
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: every setting is a flag", fs.Arg(0))
	}
	if err := fromEnvironment(fs, lookup); err != nil {
		return o, err
	}
	o.notifySocket, _ = lookup("NOTIFY_SOCKET")
	return o, nil
}

func (o *options) define(fs *flag.FlagSet) {
	settings.EtcdEndpoints().Define(fs, &o.endpoints)
	settings.EtcdPrefix().Define(fs, &o.etcd.Prefix)
	settings.EtcdKeyFile().Define(fs, &o.etcd.KeyFile)
	settings.EtcdCertFile().Define(fs, &o.etcd.CertFile)
	settings.EtcdCAFile().Define(fs, &o.etcd.CAFile)
	settings.EtcdUsername().Define(fs, &o.etcd.Username)
	settings.EtcdPassword().Define(fs, &o.etcd.Password)
	settings.EtcdPasswordFile().Define(fs, &o.etcd.PasswordFile)

	fs.Func("iface", "uplink by `name or address`; may be repeated, the first that works is used", func(s string) error {
		o.uplink.Interfaces = append(o.uplink.Interfaces, s)
		return nil
	})
	fs.Func("iface-regex", "uplink by a regular `expression` over addresses, then names; may be repeated", func(s string) error {
		re, err := regexp.Compile(s)
		o.uplink.Patterns = append(o.uplink.Patterns, re)
		return err
	})
	fs.Func("iface-can-reach", "uplink that reaches this `address`", addrInto(&o.uplink.CanReach))
	fs.Func("public-ip", "IPv4 `address` that peers send to, if it is not the uplink's (NAT)", addrOf(ip.IPv4, &o.uplink.Public.V4))
	fs.Func("public-ipv6", "IPv6 `address` that peers send to", addrOf(ip.IPv6, &o.uplink.Public.V6))

	fs.Func("node-id", "`identity` that owns this host's lease (default: derived from /etc/machine-id)", func(s string) error {
		if o.nodeID = s; s == "" {
			return nil
		}
		return subnet.CheckNodeID(s)
	})
	settings.SubnetFile().Define(fs, &o.subnetFile)
	settings.StateDir().Define(fs, &o.stateDir)
	settings.RunDir().Define(fs, &o.runDir)
	fs.BoolVar(&o.ipMasq, "ip-masq", false, "masquerade traffic from containers that leaves the network")
	o.peerFilter = true
	fs.Func("peer-filter", "`on or off`: drop tunnelled packets that come from the address of no peer, and those that containers make (default on)", switchInto(&o.peerFilter))
	o.sourceCheck = true
	fs.Func("source-check", "`on or off`: drop packets between containers whose source is not in the subnet of the host that they come from (default on)", switchInto(&o.sourceCheck))
	o.fastPath = fastPathAuto
	fs.Func("fast-path", "`auto, on or off`: packets of flows that have just passed the packet filters skip these, by programs in the kernel; auto: where the kernel allows it, on: the same, and a trouble where it does not (default auto)", fastPathInto(&o.fastPath))
	fs.Func("fast-path-exclude", "`prefixes`, separated by commas, whose packets never take the fast path; may be repeated", prefixesInto(&o.fastPathExclude))
	fs.DurationVar(&o.fastPathLife, "fast-path-life", 0, "`time` between two packets of a flow that pass the packet filters, for measurements; 0 is a second, and with less than 0 all do")
	settings.BPFDir().Define(fs, &o.bpfDir)
	fs.Func("probe", "`on or off`: ask other hosts all the time, by UDP port 8473, whether packets arrive, and answer them; name those that none arrive at, and the sizes that do (default off)", switchInto(&o.probe))
	o.answer = true
	fs.Func("answer", "`on or off`: tell other hosts that ask through etcd how this one stands, for tulle doctor there (default on)", switchInto(&o.answer))
	fs.Func("lease-ttl", "`duration` for which the lease outlives this host, such as 12h, or none: for ever (default 24h)", ttlInto(&o.leaseTTL))
	fs.Func("on-subnet-loss", "`policy` when another host has this one's subnet: hold (wait for it) or renumber (take another) (default hold)", func(s string) error {
		if s != "hold" && s != "renumber" {
			return fmt.Errorf("want hold or renumber")
		}
		o.renumber = s == "renumber"
		return nil
	})
	fs.Func("subnet-lease-renew-margin", "`minutes`, accepted for flannel's sake and unused: the lease is kept alive all the time", renewMargin)

	o.healthIP = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	fs.Func("healthz-ip", "`address` to answer /healthz, /readyz and /metrics on (default 127.0.0.1)", addrInto(&o.healthIP))
	fs.Func("healthz-port", "`port` to answer /healthz, /readyz and /metrics on (default 0: none; the socket always answers)", portInto(&o.healthPort))
	fs.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "least `level` to log: debug, info, warn or error")
	fs.Func("log-format", "`format` of the log: text or json (default text)", func(s string) error {
		if s != "text" && s != "json" {
			return fmt.Errorf("want text or json")
		}
		o.json = s == "json"
		return nil
	})
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
}

func (o *options) endpointList() []string { return settings.List(o.endpoints) }

// store completes the settings of the store.
func (o *options) store(log *slog.Logger) etcd.Config {
	c := o.etcd
	c.Endpoints, c.Logger = o.endpointList(), log
	return c
}

func (o *options) logger(w io.Writer) *slog.Logger {
	h := &slog.HandlerOptions{Level: o.logLevel}
	if o.json {
		return slog.New(slog.NewJSONHandler(w, h))
	}
	return slog.New(slog.NewTextHandler(w, h))
}
