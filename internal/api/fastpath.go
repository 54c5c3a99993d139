package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"tulle/internal/printable"
	"tulle/ip"
)

// MaxPause is for how long the fast path may be off by a request, so that one that was forgotten ends.
const MaxPause = 24 * time.Hour

// errNoFastPath is answered on a host without one.
var errNoFastPath = errors.New("there is no fast path on this host: tulle status says why")

// serveFastPath answers what operators ask of the fast path; f may be nil.
func serveFastPath(mux *http.ServeMux, f FastPath) {
	handle := func(pattern string, do func(w http.ResponseWriter, r *http.Request)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if f == nil {
				answer(w, errNoFastPath, "")
				return
			}
			do(w, r)
		})
	}
	handle("GET /v1/fast-path/flows", func(w http.ResponseWriter, _ *http.Request) {
		flows, err := f.Flows()
		if err != nil {
			answer(w, err, "")
			return
		}
		if flows == nil {
			flows = []ip.FastFlow{} // a list for whoever reads it, not null
		}
		tell(w, flows)
	})
	handle("POST /v1/fast-path/flush", func(w http.ResponseWriter, _ *http.Request) { answer(w, f.Flush(), "flushed") })
	handle("POST /v1/fast-path/pause", func(w http.ResponseWriter, r *http.Request) {
		d, err := pauseOf(r.URL.Query())
		if err != nil {
			http.Error(w, printable.Lines(err.Error()), http.StatusBadRequest)
			return
		}
		answer(w, f.Pause(d), "paused")
	})
}

// pauseOf reads for how long a pause is asked.
func pauseOf(q url.Values) (time.Duration, error) {
	text := q.Get("for")
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > MaxPause {
		return 0, fmt.Errorf("for is %.64q: want a duration such as 5m, of %v at most, or 0s", text, MaxPause)
	}
	return d, nil
}

// Flows lists the flows that take the fast path now.
func (c *Client) Flows(ctx context.Context) ([]ip.FastFlow, error) {
	body, err := c.ask(ctx, http.MethodGet, "/v1/fast-path/flows", nil)
	if err != nil {
		return nil, err
	}
	var flows []ip.FastFlow
	if err := json.Unmarshal(body, &flows); err != nil {
		return nil, fmt.Errorf("decode flows: %w", err)
	}
	return flows, nil
}

// FlushFastPath has the next packet of each flow take the plain path.
func (c *Client) FlushFastPath(ctx context.Context) error {
	_, err := c.ask(ctx, http.MethodPost, "/v1/fast-path/flush", nil)
	return err
}

// PauseFastPath has all packets take the plain path for so long; 0 ends that.
func (c *Client) PauseFastPath(ctx context.Context, d time.Duration) error {
	_, err := c.ask(ctx, http.MethodPost, "/v1/fast-path/pause?"+url.Values{"for": {d.String()}}.Encode(), nil)
	return err
}

// ask is do, of which only a success is no error.
func (c *Client) ask(ctx context.Context, method, path string, request io.Reader) ([]byte, error) {
	code, body, err := c.do(ctx, method, path, request)
	switch {
	case err != nil:
		return nil, err
	case code == http.StatusNotFound:
		return nil, errors.New("the tulled that runs on this host does not know that: restart it with this version")
	case code != http.StatusOK:
		return nil, fmt.Errorf("ask tulled: %s", strings.TrimSpace(string(body)))
	}
	return body, nil
}
