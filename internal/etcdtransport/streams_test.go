package etcdtransport

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{}
		first := c.JoinStream(t.Context())
		if second := c.JoinStream(t.Context()); second.name != first.name {
			t.Error("watches that begin together have two streams")
		}
		first.Leave()
		next := c.JoinStream(t.Context())
		if next.name == first.name {
			t.Error("a stream that was left is joined")
		}
		first.Leave()
		if again := c.JoinStream(t.Context()); again.name != next.name {
			t.Error("who left another stream ended this one")
		}
		<-time.After(joinable + 1)
		if late := c.JoinStream(t.Context()); late.name == next.name {
			t.Error("an old stream is joined")
		}
	})
}
