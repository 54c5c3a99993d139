//go:build linux

package cniplugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"tulle/internal/trouble"
)

const (
	socketName    = "tulled.sock"
	answerTimeout = 500 * time.Millisecond
	maxAnswer     = 64 << 20 // bytes; ten thousand peers take about two million
)

// daemonStatus is what matters here of tulled's status.
type daemonStatus struct {
	Ready    bool         `json:"ready"`
	Reason   string       `json:"reason"` // why not ready
	Troubles trouble.List `json:"troubles"`
	Networks []struct {
		Lease daemonLease `json:"lease"`
	} `json:"networks"`
	Lease daemonLease `json:"lease"` // of a tulled from before there was a list: the plugin may be newer
}

type daemonLease struct {
	Held bool `json:"held"`
}

// vouches reports whether this host's subnet is its own as far as anybody can know. A peer that the kernel refuses, or a store
// that is away, is no reason to start no containers.
func (s daemonStatus) vouches() bool {
	held := s.Lease.Held || len(s.Networks) > 0
	for _, n := range s.Networks {
		held = held && n.Lease.Held
	}
	return s.Ready || s.Troubles.Has(trouble.StoreUnreachable) || held
}

// askDaemon asks the tulled whose run directory is runDir. Its status, which lists all peers, is read only if it is not ready.
func askDaemon(ctx context.Context, runDir string) (daemonStatus, error) {
	var st daemonStatus
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	socket := filepath.Join(runDir, socketName)
	if _, err := get(ctx, socket, "/readyz"); err == nil || !errors.Is(err, errRefused) {
		st.Ready = err == nil
		return st, err
	}
	body, err := get(ctx, socket, "/v1/status")
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(body, &st); err != nil {
		return st, fmt.Errorf("decode status of tulled: %w", err)
	}
	return st, nil
}

// errRefused tells that there was an answer, with a status other than 200.
var errRefused = errors.New("tulled refuses")

// get returns the body of an answer with status 200. It speaks HTTP/1.0 (RFC 1945) by itself: net/http would make the plugin,
// which starts once per container, twice as large.
func get(ctx context.Context, socket, path string) ([]byte, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		err = conn.SetDeadline(deadline)
	}
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: tulled\r\n\r\n", path); err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(conn, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read answer of tulled: %w", err)
	}
	head, body, ok := bytes.Cut(answer, []byte("\r\n\r\n"))
	if fields := bytes.Fields(head); !ok || len(fields) < 2 {
		return nil, errors.New("tulled's answer is not HTTP")
	} else if string(fields[1]) != "200" {
		return nil, fmt.Errorf("%w: %s", errRefused, bytes.TrimSpace(body))
	}
	return body, nil
}
