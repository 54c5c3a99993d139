//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"tulle/internal/etcdmember"
)

const fleetPrefix = "/bench"

// etcdProcess is an etcd of its own process on loopback, so that its CPU time can be told.
type etcdProcess struct {
	program  string
	dir      string
	endpoint string
	cmd      *exec.Cmd
}

func startEtcd(ctx context.Context, program string) (*etcdProcess, error) {
	dir, err := etcdmember.ScratchDir()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // a free port, which etcd keeps when it is restarted
	if err != nil {
		return nil, err
	}
	e := &etcdProcess{program: program, dir: dir, endpoint: "http://" + l.Addr().String()}
	if err := errors.Join(l.Close(), e.start()); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return e, nil
}

// start returns when etcd serves.
func (e *etcdProcess) start() error {
	e.cmd = exec.Command(e.program, "etcd", "--data-dir", e.dir, "--listen-client-urls", e.endpoint, "--unsafe-no-fsync", "--log-level", "error")
	e.cmd.Env, e.cmd.Stderr = []string{"PATH=" + os.Getenv("PATH")}, os.Stderr
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := e.cmd.Start(); err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.Contains(line, "ready") {
		return errors.Join(fmt.Errorf("start etcd: it says %q", line), err, e.stop())
	}
	return nil
}

func (e *etcdProcess) stop() error {
	if err := e.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	_ = e.cmd.Wait() // "signal: killed"
	return nil
}

func (e *etcdProcess) restart(context.Context) error { return errors.Join(e.stop(), e.start()) }

func (e *etcdProcess) close() error { return errors.Join(e.stop(), os.RemoveAll(e.dir)) }

// put writes a key of the network.
func (e *etcdProcess) put(ctx context.Context, key, value string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	body, err := json.Marshal(map[string]any{"key": []byte(fleetPrefix + "/" + key), "value": []byte(value)})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.endpoint+"/v3/kv/put", bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("write key %s: %w", key, err)
	}
	defer response.Body.Close()
	if text, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK {
		return errors.Join(fmt.Errorf("write key %s: %s: %s", key, response.Status, text), err)
	}
	return nil
}

// etcdReading is how far what etcd uses and counts has come.
type etcdReading struct {
	usage    usage
	counters counters
}

func (e *etcdProcess) reading(ctx context.Context) (r etcdReading, err error) {
	if r.usage, err = usageOf(e.cmd.Process.Pid); err != nil {
		return r, err
	}
	r.counters, err = scrape(ctx, e.endpoint+"/metrics", nil)
	return r, err
}
