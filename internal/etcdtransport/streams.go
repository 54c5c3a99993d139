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

// Watch begins a watch on the stream. It waits for an etcd that is away. If etcd serves, and does not begin the watch, the stream is
// of no use: the watch ends then, and is to begin again on another.
func (s Stream) Watch(key string, options ...clientv3.OpOption) clientv3.WatchChan {
	ctx, cancel := context.WithCancel(s.ctx)
	begun := make(chan clientv3.WatchChan, 1)
	go func() { begun <- s.client.etcd.Watch(ctx, key, options...) }()
	tick := time.NewTicker(s.client.config.RequestTimeout)
	defer tick.Stop()
	for served := false; ; {
		select {
		case watch := <-begun:
			context.AfterFunc(s.ctx, cancel)
			return watch
		case <-tick.C:
		}
		if served { // and had the time until this tick: to open a stream takes a login
			break
		}
		served = s.client.serves(ctx)
		tick.Reset(s.client.config.RequestTimeout)
	}
	cancel()
	<-begun
	ended := make(chan clientv3.WatchResponse)
	close(ended)
	return ended
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

// AskForLife asks etcd for a sign of life to all watches on the stream, and reports whether it could: the etcd client takes no
// request while it opens the stream again, and its caller has other things to see to. Nobody joins them
// after that: the sign may be of an earlier time than the revision from which a new one watches. Nor does etcd give one
// while a watch on the stream is to begin at a later revision than there is: they begin at one that they have seen.
func (s Stream) AskForLife() bool {
	s.Leave()
	ctx, cancel := context.WithTimeout(s.ctx, s.client.config.RequestTimeout)
	defer cancel()
	return s.client.etcd.RequestProgress(ctx) == nil
}

// WatchAlone begins a watch on a stream of its own, which is opened with a new token. It ends if etcd loses its leader.
func (c *Client) WatchAlone(ctx context.Context, key string, options ...clientv3.OpOption) clientv3.WatchChan {
	return c.etcd.Watch(onStream(ctx, rand.Text()), key, options...)
}

// onStream names a stream by what it sends, which is what the client tells streams apart by.
func onStream(ctx context.Context, name string) context.Context {
	return metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "tulle-watch", name)
}
