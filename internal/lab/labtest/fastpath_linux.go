package labtest

import (
	"testing"

	"tulle/internal/lab"
	"tulle/ip"
)

// FastPath is how a host's stands.
func FastPath(t testing.TB, host *lab.Host) ip.FastPathState {
	t.Helper()
	st, err := host.FastPath(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// FastTransfer is what the fast paths of two hosts had counted before a transfer from a container of one to a container of the other.
type FastTransfer struct {
	from, to       *lab.Host
	sent, received ip.FastPathState
}

// BeginFastTransfer takes down what has been counted so far.
func BeginFastTransfer(t testing.TB, from, to *lab.Host) FastTransfer {
	t.Helper()
	return FastTransfer{from, to, FastPath(t, from), FastPath(t, to)}
}

// Require requires that the bytes of the transfer have been counted, and nearly all of them as fast, on those of the hosts that have a fast path.
func (f FastTransfer) Require(t testing.TB, name string, bytes int64) {
	t.Helper()
	for _, side := range []struct {
		host    *lab.Host
		on      bool
		was, is ip.FastTraffic
	}{
		{f.from, f.sent.On, f.sent.Out, FastPath(t, f.from).Out},
		{f.to, f.received.On, f.received.In, FastPath(t, f.to).In},
	} {
		fast, slow := side.is.FastBytes-side.was.FastBytes, side.is.SlowBytes-side.was.SlowBytes
		switch share := float64(fast) / float64(fast+slow); {
		case !side.on:
		case !(share > 0.95) || fast+slow < uint64(bytes):
			t.Errorf("%s: on %s %d bytes are fast and %d slow, of %d sent: want more than 95 %%: %+v", name, side.host, fast, slow, bytes, FastPath(t, side.host))
		default:
			t.Logf("%s: on %s %.2f %% of %d MB are fast", name, side.host, 100*share, (fast+slow)>>20)
		}
	}
}
