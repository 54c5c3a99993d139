package probe

import (
	"testing"
	"time"

	"tulle/ip"
)

// BenchmarkSecond is the work of one second with 10,000 peers that all answer, without sockets.
func BenchmarkSecond(b *testing.B) {
	w := newWorld(&testing.T{}, ip.IPv4, 10_000)
	w.run(10 * time.Minute)
	b.ReportAllocs()
	for b.Loop() {
		w.asked = w.asked[:0]
		w.run(time.Second)
	}
}

// BenchmarkWant is what a pass costs that changes one peer of 10,000.
func BenchmarkWant(b *testing.B) {
	w := newWorld(&testing.T{}, ip.IPv4, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		w.peers[5000].Size[Fabric] ^= 1
		w.s.want(Want{Self: w.from, Peers: w.peers}, w.now)
	}
}

// BenchmarkWantSame is what a pass costs that changes nothing.
func BenchmarkWantSame(b *testing.B) {
	p := New(Config{})
	w := newWorld(&testing.T{}, ip.IPv4, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		p.Want(Want{Self: w.from, Peers: w.peers})
	}
}
