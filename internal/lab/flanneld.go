//go:build linux

package lab

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// FlanneldConfig says how a real flanneld runs on a host, in tulled's place.
type FlanneldConfig struct {
	Program string
	Uplink  string // default "eth0"
	Prefix  string // of its keys in etcd; default: the lab's
	Log     string // its path; default: in the host's directory
}

// Flanneld is a real flanneld on a host of the lab.
type Flanneld struct {
	host    *Host
	process *process
	log     string
}

// StartFlanneld does what an operator does before flanneld starts, and starts it. It ends with the lab.
func (h *Host) StartFlanneld(config FlanneldConfig) (*Flanneld, error) {
	if err := h.setSysctls(map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}); err != nil {
		return nil, err
	}
	f := &Flanneld{host: h, log: cmp.Or(config.Log, filepath.Join(h.Dir, "flanneld.log"))}
	var err error
	f.process, err = h.lab.start(h.node, "flanneld", f.log, config.Program,
		"--etcd-endpoints", h.lab.Etcd.Endpoint(h),
		"--etcd-prefix", cmp.Or(config.Prefix, etcdPrefix),
		"--iface", cmp.Or(config.Uplink, uplink),
		"--subnet-file", h.SubnetFile(),
		"--ip-masq",
	)
	return f, err
}

// AwaitRunning waits until flanneld has a subnet and its backend runs.
func (f *Flanneld) AwaitRunning(ctx context.Context) error {
	err := poll(ctx, readyTimeout, func() bool { return f.process.exited() || f.running() })
	if err != nil || !f.running() {
		return fmt.Errorf("wait for flanneld on %s: its backend does not run\n%s", f.host, logTail(f.log))
	}
	return nil
}

func (f *Flanneld) running() bool {
	text, err := f.ReadLog()
	if err != nil || !strings.Contains(text, "Running backend.") {
		return false
	}
	_, err = f.host.ReadSubnetFile()
	return err == nil
}

// ReadLog returns what flanneld has said so far.
func (f *Flanneld) ReadLog() (string, error) {
	text, err := os.ReadFile(f.log)
	return string(text), err
}

// Stop asks flanneld to stop and waits for it. An exit code but 0 is an error, and to have died before that.
func (f *Flanneld) Stop() error {
	if f.process.exited() {
		return fmt.Errorf("stop flanneld on %s: it has died: %s", f.host, f.process.outcome())
	}
	return f.process.stop()
}

// Kill kills flanneld with SIGKILL.
func (f *Flanneld) Kill() { f.process.kill() }
