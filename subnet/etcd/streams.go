package etcd

import (
	"context"
	"crypto/rand"
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
const joinable = time.Minute

// join makes watches of ctx use the stream that can be joined, or a new one. They end if etcd loses its leader.
// leave has nobody join that stream any more.
func (s *streams) join(ctx context.Context) (stream context.Context, leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.name == "" || time.Since(s.opened) > joinable {
		s.name, s.opened = rand.Text(), time.Now()
	}
	name := s.name
	return onStream(ctx, name), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.name == name {
			s.name = ""
		}
	}
}

// ownStream makes watches of ctx use a stream of their own, which is opened with a new token. They end if etcd loses its leader.
func ownStream(ctx context.Context) context.Context { return onStream(ctx, rand.Text()) }

// onStream names a stream by what it sends, which is what the client tells streams apart by.
func onStream(ctx context.Context, name string) context.Context {
	return metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "tulle-watch", name)
}
