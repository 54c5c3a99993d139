package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"tulle/internal/agent"
	"tulle/internal/printable"
)

const (
	// MaxPings is how often a peer is asked each way by one request, at most.
	MaxPings = 20

	maxPing = 4 << 10 // bytes of a request

	// pingTime is how long a ping may take: where sizes are lost, the largest that arrives takes a while to find. It is less than Serve gives an answer.
	pingTime = 25 * time.Second
)

// ping is a request to ask a peer at once.
type ping struct {
	Peer  string `json:"peer"`  // its node id, lease, or an address of it
	Count int    `json:"count"` // each way; 0: once
}

// servePeers answers what operators ask about peers.
func servePeers(mux *http.ServeMux, p Prober) {
	mux.HandleFunc("GET /v1/peers", func(w http.ResponseWriter, _ *http.Request) { tell(w, p.Peers()) })
	mux.HandleFunc("POST /v1/ping", func(w http.ResponseWriter, r *http.Request) {
		asked, err := readPing(w, r)
		if err != nil {
			http.Error(w, printable.Lines(err.Error()), http.StatusBadRequest)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), pingTime)
		defer cancel()
		switch answers, err := p.Ping(ctx, asked.Peer, max(asked.Count, 1)); {
		case errors.Is(err, agent.ErrUnknownPeer):
			http.Error(w, printable.Lines(err.Error()), http.StatusBadRequest)
		case err != nil:
			answer(w, err, "")
		default:
			tell(w, answers)
		}
	})
}

func readPing(w http.ResponseWriter, r *http.Request) (p ping, err error) {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPing))
	d.DisallowUnknownFields()
	switch err := d.Decode(&p); {
	case err != nil:
		return p, fmt.Errorf("want a JSON object with peer and count: %w", err)
	case p.Peer == "":
		return p, errors.New("peer is missing: want a node id, a lease, or an address")
	case p.Count < 0 || p.Count > MaxPings:
		return p, fmt.Errorf("count is %d: want 1 to %d", p.Count, MaxPings)
	}
	return p, nil
}

// Peers returns all peers of this host, with what is known of the ways to them.
func (c *Client) Peers(ctx context.Context) (agent.PeerReports, error) {
	var all agent.PeerReports
	body, err := c.ask(ctx, http.MethodGet, "/v1/peers", nil)
	if err != nil {
		return all, err
	}
	if err := json.Unmarshal(body, &all); err != nil {
		return all, fmt.Errorf("decode peers: %w", err)
	}
	return all, nil
}

// Ping has tulled ask a peer at once, count times each way.
func (c *Client) Ping(ctx context.Context, peer string, count int) (agent.Pinged, error) {
	var answers agent.Pinged
	request, err := json.Marshal(ping{peer, count})
	if err != nil {
		return answers, fmt.Errorf("ask tulled: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, pingTime+patience)
	defer cancel()
	body, err := c.ask(ctx, http.MethodPost, "/v1/ping", bytes.NewReader(request))
	if err != nil {
		return answers, err
	}
	if err := json.Unmarshal(body, &answers); err != nil {
		return answers, fmt.Errorf("decode answers: %w", err)
	}
	return answers, nil
}
