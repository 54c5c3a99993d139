// Package api serves the daemon's status and health over HTTP, and asks for them.
package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"tulle/internal/agent"
	"tulle/internal/hostfiles"
	"tulle/internal/printable"
	"tulle/ip"
)

// SocketName is the name of the unix socket below the daemon's run directory.
const SocketName = "tulled.sock"

// Daemon is what the handlers ask.
type Daemon interface {
	Status() agent.Status
	// Summary is Status without the list of peers, which may be long.
	Summary() agent.Status
	// Alive returns nil while the reconcile loop runs.
	Alive() error
	// Wanted is what the kernel is wanted to look like now.
	Wanted(ctx context.Context) (hostfiles.Wanted, error)
}

// FastPath is what operators ask of the fast path.
type FastPath interface {
	// Flows lists the flows that are admitted now.
	Flows() ([]ip.FastFlow, error)
	// Flush ends all admissions.
	Flush() error
	// Pause keeps packets on the plain path for so long; 0 ends that.
	Pause(d time.Duration) error
}

// Prober is asked about peers, and to ask them.
type Prober interface {
	// Peers lists all peers, with what is known of the ways to them.
	Peers() agent.PeerReports
	// Ping asks a peer at once. The error wraps agent.ErrUnknownPeer if there is none such.
	Ping(ctx context.Context, peer string, count int) (agent.Pinged, error)
}

// Health answers the probes: /healthz says whether the loop is alive, /readyz whether the lease is held and the kernel is
// right, /metrics how it goes, for Prometheus.
func Health(d Daemon) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, d.Alive(), "alive")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		st := d.Summary()
		err := d.Alive()
		if err == nil && !st.Ready {
			err = fmt.Errorf("%s", st.Reason)
		}
		fine := "ready"
		if st.Degraded != "" {
			fine += ", degraded: " + st.Degraded
		}
		answer(w, err, fine)
	})
	mux.Handle("GET /metrics", metricsHandler(d))
	return mux
}

// Full is Health with the status, what is wanted, the peers, the fast path and the end of the log, for the unix socket. A host without a fast path has nil.
func Full(d Daemon, p Prober, f FastPath, log func() []byte) *http.ServeMux {
	mux := Health(d)
	serveFastPath(mux, f)
	servePeers(mux, p)
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { tell(w, d.Status()) })
	mux.HandleFunc("GET /v1/log", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(log()) // the reader may be gone
	})
	mux.HandleFunc("GET /v1/wanted", func(w http.ResponseWriter, r *http.Request) {
		wanted, err := d.Wanted(r.Context())
		if err != nil {
			answer(w, err, "")
			return
		}
		tell(w, wanted)
	})
	return mux
}

func tell(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	// The reader may be gone; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(value)
}

func answer(w http.ResponseWriter, err error, fine string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, printable.Lines(err.Error()))
		return
	}
	fmt.Fprintln(w, printable.Lines(fine))
}
