package etcdtransport

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
const joinable = 10 * time.Second

// Stream is one that watches are begun on.
type Stream struct {
	ctx    context.Context // for watches on it
	name   string
	client *Client
}

// JoinStream has watches of ctx use the stream that can be joined, or a new one. They end if etcd loses its leader.
func (c *Client) JoinStream(ctx context.Context) Stream {
	j := &c.streams
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.name == "" || time.Since(j.opened) > joinable {
		j.name, j.opened = rand.Text(), time.Now()
	}
	return Stream{onStream(ctx, j.name), j.name, c}
}

// Watch begins a watch on the stream.
func (s Stream) Watch(key string, options ...clientv3.OpOption) clientv3.WatchChan {
	return s.client.etcd.Watch(s.ctx, key, options...)
}

// Leave has nobody join the stream any more.
func (s Stream) Leave() {
	j := &s.client.streams
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.name == s.name {
		j.name = ""
	}
}

// AskForLife asks etcd for a sign of life to all watches on the stream, and reports whether it could. Nobody joins them
// after that: the sign may be of an earlier time than the revision from which a new one watches. Nor does etcd give one
// while a watch on the stream is to begin at a later revision than there is: they begin at one that they have seen.
func (s Stream) AskForLife() bool {
	s.Leave()
	return s.client.etcd.RequestProgress(s.ctx) == nil
}

// WatchAlone begins a watch on a stream of its own, which is opened with a new token. It ends if etcd loses its leader.
func (c *Client) WatchAlone(ctx context.Context, key string, options ...clientv3.OpOption) clientv3.WatchChan {
	return c.etcd.Watch(onStream(ctx, rand.Text()), key, options...)
}

// onStream names a stream by what it sends, which is what the client tells streams apart by.
func onStream(ctx context.Context, name string) context.Context {
	return metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "tulle-watch", name)
}
