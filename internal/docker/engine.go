package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrNotRunning says that no Docker answers on the socket.
var ErrNotRunning = errors.New("no docker answers")

const (
	// engineTimeout is for one request; making a network takes Docker a second on a busy host.
	engineTimeout = 10 * time.Second
	// maxAnswer bounds what is read of one answer, in bytes.
	maxAnswer = 64 << 20
)

// Engine is a running Docker, asked over its HTTP API (https://docs.docker.com/reference/api/engine/).
type Engine struct {
	// Version of the daemon. A build without a release number counts as the release that its API came with.
	Version Version

	socket string
	http   http.Client
	base   string
	api    Version
}

// Connect asks the Docker behind a unix socket for its version. If none answers, the error is ErrNotRunning.
func Connect(ctx context.Context, socket string) (*Engine, error) {
	e := newEngine(socket)
	var answer struct{ Version, APIVersion string }
	if err := e.call(ctx, http.MethodGet, "/version", nil, &answer); err != nil {
		return nil, err
	}
	var err error
	if e.api, err = ParseVersion(answer.APIVersion); err != nil {
		return nil, fmt.Errorf("ask docker for its API version: %w", err)
	}
	e.base += "/v" + answer.APIVersion
	e.Version = releaseOf(answer.Version, e.api)
	return e, nil
}

func newEngine(socket string) *Engine {
	return &Engine{socket: socket, base: "http://docker", http: http.Client{
		Timeout: engineTimeout,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", socket)
			// One that hangs runs, and is full at some time: connect(2) of a unix socket says EAGAIN then.
			if err != nil && !errors.Is(err, syscall.EAGAIN) {
				err = fmt.Errorf("%w on %s: %w", ErrNotRunning, socket, err)
			}
			return conn, err
		}},
	}}
}

// releaseOf reads a release number. Builds from source have none, or that of the Go module, which counts from 2: then
// the API tells (https://docs.docker.com/reference/api/engine/#api-version-matrix).
func releaseOf(text string, api Version) Version {
	if v, err := ParseVersion(text); err == nil && v.Major >= 17 {
		return v
	}
	for _, known := range []struct{ api, release Version }{
		{Version{1, 52}, Version{29, 0}},
		{Version{1, 50}, Version{28, 2}},
		{Version{1, 48}, Version{28, 0}},
	} {
		if api.atLeast(known.api.Major, known.api.Minor) {
			return known.release
		}
	}
	return Version{}
}

// Info is what Docker says of itself.
type Info struct {
	Containers  int                     `json:"ContainersRunning"`
	LiveRestore bool                    `json:"LiveRestoreEnabled"` // containers, and docker0 as it is, survive a restart of Docker
	Firewall    struct{ Driver string } `json:"FirewallBackend"`    // "iptables", "nftables", ...; empty before Docker 28.1
}

// Info asks for it.
func (e *Engine) Info(ctx context.Context) (Info, error) {
	var info Info
	return info, e.call(ctx, http.MethodGet, "/info", nil, &info)
}

// call sends a request, with body as JSON unless it is nil, and decodes the answer into answer unless that is nil.
func (e *Engine) call(ctx context.Context, method, path string, body, answer any) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode request to docker: %w", err)
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, e.base+path, content)
	if err != nil {
		return fmt.Errorf("ask docker: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := e.http.Do(request)
	if err != nil {
		return e.unanswered(ctx, fmt.Errorf("ask docker: %w", err))
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return e.unanswered(ctx, fmt.Errorf("read answer of docker: %w", err))
	}
	if response.StatusCode >= http.StatusBadRequest {
		return refusal(response.StatusCode, text)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("decode answer of docker to %s: %w", path, err)
	}
	return nil
}

// unanswered says what to do if err, of a request, is that Docker hangs.
func (e *Engine) unanswered(ctx context.Context, err error) error {
	const remedy = "see what it waits for (journalctl -u docker), restart it (systemctl restart docker), or give another --docker-socket"
	var timeout net.Error
	switch {
	case ctx.Err() != nil:
		return err
	case errors.Is(err, syscall.EAGAIN):
		return fmt.Errorf("docker takes no more connections on %s: %s: %w", e.socket, remedy, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("docker does not answer on %s within %v: %s: %w", e.socket, e.http.Timeout, remedy, err)
	}
	return err
}

// refusalError is an answer of Docker's that it will not.
type refusalError struct {
	code    int
	message string
}

func (e *refusalError) Error() string { return "docker refuses: " + e.message }

func refusal(code int, text []byte) error {
	var answer struct{ Message string }
	if json.Unmarshal(text, &answer) != nil || answer.Message == "" {
		answer.Message = strconv.Itoa(code) + " " + strings.TrimSpace(string(text))
	}
	return &refusalError{code, strings.TrimSpace(answer.Message)}
}
