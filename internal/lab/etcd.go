//go:build linux

package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"tulle/internal/etcdmember"
)

const etcdPrefix = "/coreos.com/network"

// Etcd is the store of the lab.
type Etcd struct {
	// Members of the cluster. A single one runs on the router; of several, each
	// has a namespace of its own, on a segment of their own.
	Members []*EtcdMember

	lab       *Lab
	dataDir   string
	authority *authority // nil without TLS
	port      int
}

// Endpoint are the URLs, separated by commas, by which host reaches etcd.
func (e *Etcd) Endpoint(host *Host) string {
	if len(e.Members) == 1 {
		return e.url(routerAddr(e.lab.Config.Families[0], host.Segment))
	}
	urls := make([]string, len(e.Members))
	for i, member := range e.Members {
		urls[i] = member.URL()
	}
	return strings.Join(urls, ",")
}

// Start starts those members that do not run, each with the data of its former
// run if there is one, and waits until all serve.
func (e *Etcd) Start(ctx context.Context) error {
	started := false
	for _, member := range e.Members {
		if member.Running() {
			continue
		}
		if err := member.Start(); err != nil {
			return err
		}
		started = true
	}
	if !started {
		return errors.New("start etcd: it is running")
	}
	for _, member := range e.Members {
		if err := member.WaitServing(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (e *Etcd) makeDataDir() error {
	if e.dataDir != "" {
		return nil
	}
	dir, err := etcdmember.ScratchDir()
	if err != nil {
		return err
	}
	e.dataDir = dir
	return e.lab.saveState()
}

func (e *Etcd) removeDataDir() error {
	if e.dataDir == "" {
		return nil
	}
	return os.RemoveAll(e.dataDir)
}

// Stop asks all members to stop and waits for them. Their data stay.
func (e *Etcd) Stop() error {
	var errs []error
	for _, member := range e.Members {
		errs = append(errs, member.Stop())
	}
	return errors.Join(errs...)
}

// Kill kills all members with SIGKILL. Their data stay.
func (e *Etcd) Kill() {
	for _, member := range e.Members {
		member.Kill()
	}
}

// MoveTo gives the members another client port, from their next start on.
func (e *Etcd) MoveTo(port int) { e.port = port }

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

// mostPuts is how many keys are written in one request; etcd takes 128 by default.
const mostPuts = 100

// PutAll writes keys that stay until they are deleted, many in one request.
func (e *Etcd) PutAll(ctx context.Context, pairs iter.Seq2[string, string]) error {
	var puts []any
	flush := func() error {
		if len(puts) == 0 {
			return nil
		}
		err := e.call(ctx, "kv/txn", map[string]any{"success": puts}, nil)
		puts = puts[:0]
		return err
	}
	for key, value := range pairs {
		puts = append(puts, map[string]any{"requestPut": map[string]any{"key": []byte(key), "value": []byte(value)}})
		if len(puts) < mostPuts {
			continue
		}
		if err := flush(); err != nil {
			return err
		}
	}
	return flush()
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

// call makes a request to the HTTP gateway of one member after another, from
// inside the router, until one fulfils it.
func (e *Etcd) call(ctx context.Context, method string, body, result any) error {
	var errs []error
	for _, member := range e.Members {
		err := member.call(ctx, method, body, result)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (m *EtcdMember) call(ctx context.Context, method string, body, result any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode etcd request: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, m.URL()+"/v3/"+method, bytes.NewReader(text))
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: m.etcd.Dial, TLSClientConfig: m.etcd.TLS()}
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

// TLS are the settings of a client of etcd, nil if it is served without TLS.
func (e *Etcd) TLS() *tls.Config {
	if e.authority == nil {
		return nil
	}
	return e.authority.client()
}

// Dial connects from inside the router.
func (e *Etcd) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = e.lab.router.Do(func() (err error) {
		var dialer net.Dialer
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}
