//go:build linux

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"tulle/internal/etcdmember"
	"tulle/ip"
)

const (
	etcdPrefix = "/coreos.com/network"
	etcdPort   = 2379
)

// Etcd is the store of the lab: one member that runs on the router.
type Etcd struct {
	lab     *Lab
	process *process
	dataDir string
}

// Endpoint is the URL by which host reaches etcd.
func (e *Etcd) Endpoint(host *Host) string { return e.url(host.Segment) }

func (e *Etcd) url(segment int) string {
	addr := routerAddr(e.lab.Config.Families[0], segment)
	return "http://" + netip.AddrPortFrom(addr, etcdPort).String()
}

// Start starts etcd, with the data of a former run if there is one, and waits
// until it serves.
func (e *Etcd) Start(ctx context.Context) error {
	if e.process != nil && !e.process.exited() {
		return errors.New("start etcd: it is running")
	}
	if e.dataDir == "" {
		dir, err := etcdmember.ScratchDir()
		if err != nil {
			return err
		}
		e.dataDir = dir
		if err := e.lab.saveState(); err != nil {
			return err
		}
	}
	listen := "http://[::]"
	if !slices.Contains(e.lab.Config.Families, ip.IPv6) {
		listen = "http://0.0.0.0"
	}
	process, err := e.lab.start(e.lab.router, "etcd", e.log(), e.lab.Config.Tulle, "etcd",
		"--data-dir", e.dataDir,
		"--listen-client-urls", fmt.Sprintf("%s:%d", listen, etcdPort),
		"--advertise-client-urls", e.url(1),
		"--unsafe-no-fsync",
		"--log-level", "fatal",
	)
	if err != nil {
		return err
	}
	e.process = process
	return e.waitServing(ctx)
}

func (e *Etcd) waitServing(ctx context.Context) error {
	var last error
	err := poll(ctx, readyTimeout, func() bool {
		if e.process.exited() {
			last = errors.New("it exited: " + e.process.outcome())
			return true
		}
		_, last = e.Get(ctx, etcdPrefix)
		return last == nil
	})
	if ctx.Err() != nil {
		return fmt.Errorf("wait for etcd: %w", context.Cause(ctx))
	}
	if err != nil || last != nil {
		return fmt.Errorf("wait for etcd: %w\n%s", errors.Join(err, last), logTail(e.log()))
	}
	return nil
}

func (e *Etcd) log() string { return filepath.Join(e.lab.Config.Dir, "etcd.log") }

// Stop asks etcd to stop and waits for it. Its data stay.
func (e *Etcd) Stop() error {
	if e.process == nil {
		return nil
	}
	return e.process.stop()
}

// Kill kills etcd with SIGKILL. Its data stay.
func (e *Etcd) Kill() {
	if e.process != nil {
		e.process.kill()
	}
}

// Key returns the full name of a key of the network, such as "config".
func (e *Etcd) Key(name string) string { return etcdPrefix + "/" + name }

// Put writes a key that stays until it is deleted.
func (e *Etcd) Put(ctx context.Context, key, value string) error {
	return e.call(ctx, "kv/put", map[string]any{"key": []byte(key), "value": []byte(value)}, nil)
}

// PutLeased writes a key that expires after ttl unless its lease is renewed.
func (e *Etcd) PutLeased(ctx context.Context, key, value string, ttl time.Duration) error {
	var lease struct{ ID string }
	if err := e.call(ctx, "lease/grant", map[string]any{"TTL": int(ttl.Seconds())}, &lease); err != nil {
		return err
	}
	return e.call(ctx, "kv/put", map[string]any{"key": []byte(key), "value": []byte(value), "lease": lease.ID}, nil)
}

// Delete deletes a key.
func (e *Etcd) Delete(ctx context.Context, key string) error {
	return e.call(ctx, "kv/deleterange", map[string]any{"key": []byte(key)}, nil)
}

// Wipe deletes all keys of the network in one step.
func (e *Etcd) Wipe(ctx context.Context) error {
	return e.call(ctx, "kv/deleterange", map[string]any{"key": []byte(etcdPrefix + "/"), "range_end": []byte(etcdPrefix + "0")}, nil)
}

// Get returns the values of all keys with the given string prefix, by key.
func (e *Etcd) Get(ctx context.Context, prefix string) (map[string]string, error) {
	end := []byte(prefix)
	end[len(end)-1]++
	var found struct {
		KVs []struct{ Key, Value []byte }
	}
	if err := e.call(ctx, "kv/range", map[string]any{"key": []byte(prefix), "range_end": end}, &found); err != nil {
		return nil, err
	}
	values := make(map[string]string, len(found.KVs))
	for _, kv := range found.KVs {
		values[string(kv.Key)] = string(kv.Value)
	}
	return values, nil
}

// call makes a request to etcd's HTTP gateway from inside the router.
func (e *Etcd) call(ctx context.Context, method string, body, result any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode etcd request: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url(1)+"/v3/"+method, bytes.NewReader(text))
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: e.dial}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("call %s of etcd: %w", method, err)
	}
	defer response.Body.Close()
	if text, err = io.ReadAll(response.Body); err != nil {
		return fmt.Errorf("call %s of etcd: %w", method, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("call %s of etcd: %s: %s", method, response.Status, bytes.TrimSpace(text))
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(text, result); err != nil {
		return fmt.Errorf("decode answer to %s of etcd: %w", method, err)
	}
	return nil
}

func (e *Etcd) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = e.lab.router.Do(func() (err error) {
		var dialer net.Dialer
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}
