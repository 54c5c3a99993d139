package etcd

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Store{}
		first := s.joinStream(t.Context())
		if second := s.joinStream(t.Context()); second.name != first.name {
			t.Error("watches that begin together have two streams")
		}
		first.leave()
		next := s.joinStream(t.Context())
		if next.name == first.name {
			t.Error("a stream that was left is joined")
		}
		first.leave()
		if again := s.joinStream(t.Context()); again.name != next.name {
			t.Error("who left another stream ended this one")
		}
		<-time.After(joinable + 1)
		if late := s.joinStream(t.Context()); late.name == next.name {
			t.Error("an old stream is joined")
		}
	})
}
