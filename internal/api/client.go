package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"tulle/internal/agent"
	"tulle/internal/hostfiles"
)

// maxAnswer bounds what a client reads, in bytes: ten thousand peers take about two million.
const maxAnswer = 64 << 20

// patience is how long a client waits for an answer, unless its context says otherwise.
const patience = 10 * time.Second

// Client asks the daemon on this host.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client for the daemon whose run directory is runDir.
func NewClient(runDir string) *Client {
	socket := filepath.Join(runDir, SocketName)
	return &Client{socket: socket, http: http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}},
	}}
}

// Status returns how things stand on this host.
func (c *Client) Status(ctx context.Context) (agent.Status, error) {
	var st agent.Status
	return st, c.DecodeStatus(ctx, &st)
}

// DecodeStatus is Status for callers that need some of its fields only: v points to a struct that has them.
func (c *Client) DecodeStatus(ctx context.Context, v any) error {
	code, body, err := c.get(ctx, "/v1/status")
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return fmt.Errorf("ask tulled for its status: %s: %s", http.StatusText(code), strings.TrimSpace(string(body)))
	}
	return decodeStatus(body, v)
}

func decodeStatus(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode status: %w", err)
	}
	return nil
}

// Metrics returns what tulled counts, in Prometheus' text format.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	code, body, err := c.get(ctx, "/metrics")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("ask tulled for its metrics: %s", http.StatusText(code))
	}
	return body, err
}

// Log returns the last lines that tulled has logged.
func (c *Client) Log(ctx context.Context) ([]byte, error) {
	code, body, err := c.get(ctx, "/v1/log")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("ask tulled for its log: %s", http.StatusText(code))
	}
	return body, err
}

// Wanted returns what the kernel of this host is wanted to look like: what the daemon says or, if none answers, what the last one left.
func (c *Client) Wanted(ctx context.Context) (hostfiles.Wanted, error) {
	code, body, err := c.get(ctx, "/v1/wanted")
	if err != nil || code != http.StatusOK {
		return hostfiles.ReadWanted(filepath.Dir(c.socket))
	}
	var w hostfiles.Wanted
	if err := json.Unmarshal(body, &w); err != nil {
		return w, fmt.Errorf("decode what is wanted: %w", err)
	}
	return w, nil
}

// Readiness reports whether the daemon is ready. The text says why not, or what else there is to say, such as that it is degraded.
func (c *Client) Readiness(ctx context.Context) (ready bool, text string, err error) {
	code, body, err := c.get(ctx, "/readyz")
	return code == http.StatusOK, strings.TrimSpace(string(body)), err
}

// silent says what to do where no answer comes.
func (c *Client) silent(err error) error {
	switch {
	case Absent(err):
		return fmt.Errorf("no tulled answers on %s: start it, or name its --run-dir: %w", c.socket, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the socket %s is for root alone: %w", c.socket, err)
	}
	return fmt.Errorf("a tulled holds %s and does not answer: traffic goes on as it is, and nothing is mended: look at its log (journalctl -u tulled), then restart it (systemctl restart tulled): %w", c.socket, err)
}

func (c *Client) get(ctx context.Context, path string) (code int, body []byte, err error) {
	return c.do(ctx, http.MethodGet, path, nil)
}

func (c *Client) do(ctx context.Context, method, path string, request io.Reader) (code int, body []byte, err error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://tulled"+path, request)
	if err != nil {
		return 0, nil, fmt.Errorf("ask tulled: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		// The URL that net/http names is made up, the socket is what counts.
		if urlErr, ok := errors.AsType[*url.Error](err); ok {
			err = urlErr.Err
		}
		return 0, nil, c.silent(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("read answer of tulled: %w", err)
	}
	return resp.StatusCode, body, nil
}
