package etcd

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

// streams lets watches that begin together share a stream: etcd pays for each. One that ends leaves its stream, and
// begins again on another.
type streams struct {
	mu     sync.Mutex
	name   string // of the stream to join; empty if there is none
	opened time.Time
}

// joinable is how long after it was opened a stream can be joined. It keeps its token, which etcd forgets some time.
const joinable = 10 * time.Second

// stream is one that watches were begun on.
type stream struct {
	ctx   context.Context // for watches on it
	name  string
	store *Store
}

// joinStream makes watches of ctx use the stream that can be joined, or a new one. They end if etcd loses its leader.
func (s *Store) joinStream(ctx context.Context) stream {
	j := &s.streams
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.name == "" || time.Since(j.opened) > joinable {
		j.name, j.opened = rand.Text(), time.Now()
	}
	return stream{onStream(ctx, j.name), j.name, s}
}

// leave has nobody join the stream any more.
func (s stream) leave() {
	j := &s.store.streams
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.name == s.name {
		j.name = ""
	}
}

// askForLife asks etcd for a sign of life to all watches on the stream, and reports whether it could. Nobody joins them
// after that: the sign may be of an earlier time than the revision from which a new one watches. Nor does etcd give one
// while a watch on the stream is to begin at a later revision than there is: they begin at one that they have seen.
func (s stream) askForLife() bool {
	s.leave()
	return s.store.client.RequestProgress(s.ctx) == nil
}

// since returns the events after a revision.
func since(revision int64, events []*clientv3.Event) []*clientv3.Event {
	first := slices.IndexFunc(events, func(e *clientv3.Event) bool { return e.Kv.ModRevision > revision })
	if first < 0 {
		return nil
	}
	return events[first:] // they come in order
}

// ownStream makes watches of ctx use a stream of their own, which is opened with a new token. They end if etcd loses its leader.
func ownStream(ctx context.Context) context.Context { return onStream(ctx, rand.Text()) }

// onStream names a stream by what it sends, which is what the client tells streams apart by.
func onStream(ctx context.Context, name string) context.Context {
	return metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "tulle-watch", name)
}
