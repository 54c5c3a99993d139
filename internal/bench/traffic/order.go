//go:build linux

package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// Kind is a kind of traffic.
type Kind string

// What is counted of each kind is in parentheses.
const (
	TCPRoundTrip Kind = "tcp-rr"      // a byte there and one back, over one connection (round trips)
	UDPRoundTrip Kind = "udp-rr"      // the same with datagrams (round trips)
	UDPOneWay    Kind = "udp-one-way" // datagrams of 64 bytes, as many as can be sent (datagrams that arrived)
	TCPConnect   Kind = "tcp-connect" // a connection, a byte there and one back, and its end (connections)
	TCPBulk      Kind = "tcp-bulk"    // as much as goes through (bytes)
)

// Congestion is the congestion control of all TCP connections: Linux' own default. That of this machine may be another, under which the path's part of
// the cost is another.
const Congestion = "cubic"

// Action is what an end is told to do.
type Action string

// The end that answers listens; the other opens what it sends over, and runs.
const (
	Listen Action = "listen" // answers Addr
	Open   Action = "open"
	Run    Action = "run"   // answers Count and Took, of this run
	Count  Action = "count" // answers Count, since it listens
	CPU    Action = "cpu"   // answers CPU, so far
	Close  Action = "close" // what it listens by or has opened; nothing is fine
)

// Order is what an end is to do.
type Order struct {
	Action  Action         `json:"action"`
	Kind    Kind           `json:"kind,omitempty"`
	Streams int            `json:"streams,omitempty"` // at once, of TCPBulk
	Addr    netip.AddrPort `json:"addr,omitzero"`     // to listen at, or to open
	For     time.Duration  `json:"for,omitempty"`     // to run
}

// Answer is what an end says when it is done.
type Answer struct {
	Error string         `json:"error,omitempty"`
	Addr  netip.AddrPort `json:"addr,omitzero"`
	Count uint64         `json:"count,omitempty"`
	Took  time.Duration  `json:"took,omitempty"`
	CPU   time.Duration  `json:"cpu,omitempty"`
}

// Remote is an end in another process.
type Remote struct {
	conn io.ReadWriteCloser
	in   *json.Decoder
	out  *json.Encoder
}

// NewRemote talks over conn to an end that serves it.
func NewRemote(conn io.ReadWriteCloser) *Remote {
	return &Remote{conn: conn, in: json.NewDecoder(conn), out: json.NewEncoder(conn)}
}

// Do has the end carry out an order. When ctx ends, so does the connection.
func (r *Remote) Do(ctx context.Context, o Order) (Answer, error) {
	stop := context.AfterFunc(ctx, func() { r.conn.Close() })
	defer stop()
	var a Answer
	err := r.out.Encode(o)
	if err == nil {
		err = r.in.Decode(&a)
	}
	switch {
	case ctx.Err() != nil:
		return Answer{}, context.Cause(ctx)
	case errors.Is(err, io.EOF):
		return Answer{}, fmt.Errorf("%s: the other end has gone", o.Action)
	case err != nil:
		return Answer{}, fmt.Errorf("%s: %w", o.Action, err)
	case a.Error != "":
		return Answer{}, fmt.Errorf("%s: %s", o.Action, a.Error)
	}
	return a, nil
}

// Close ends the connection, and with it what the end does.
func (r *Remote) Close() error { return r.conn.Close() }
