//go:build linux

package etcd_test

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	"tulle/internal/etcdmember/etcdmembertest"
	"tulle/subnet/etcd"
)

// relay carries requests to an etcd, and can make streams of watches mute while all else goes on.
type relay struct {
	endpoint string
	etcd     *grpc.ClientConn

	mu     sync.Mutex
	period int      // of streams: those of watches from earlier ones are mute
	asked  []string // of streams of watches in this period
}

func newRelay(t *testing.T, endpoint string) *relay {
	t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(endpoint, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{endpoint: "http://" + listener.Addr().String(), etcd: conn}
	server := grpc.NewServer(grpc.ForceServerCodecV2(bytesCodec{}), grpc.UnknownServiceHandler(r.carry))
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(listener) }) // it ends with Stop
	t.Cleanup(func() {
		server.Stop()
		wg.Wait()
		conn.Close()
	})
	return r
}

// mute has the streams of watches that are open now tell nothing any more.
func (r *relay) mute() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.period++
	r.asked = nil
}

func (r *relay) now() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.period
}

// watches reports whether a watch of a key was begun since streams were made mute.
func (r *relay) watches(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.asked, func(request string) bool { return strings.Contains(request, key) })
}

func (r *relay) carry(_ any, near grpc.ServerStream) error {
	begun := r.now()
	method, _ := grpc.MethodFromServerStream(near)
	md, _ := metadata.FromIncomingContext(near.Context())
	far, err := r.etcd.NewStream(metadata.NewOutgoingContext(near.Context(), md), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, grpc.ForceCodecV2(bytesCodec{}))
	if err != nil {
		return err
	}
	go func() { // until near ends, which it does at the latest when carry returns
		var message []byte
		for near.RecvMsg(&message) == nil {
			r.note(method, begun, message)
			if far.SendMsg(&message) != nil {
				return
			}
		}
		_ = far.CloseSend() // what is wrong, far tells below
	}()
	for {
		var message []byte
		if err := far.RecvMsg(&message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if method == pb.Watch_Watch_FullMethodName && begun != r.now() {
			continue
		}
		if err := near.SendMsg(&message); err != nil {
			return err
		}
	}
}

func (r *relay) note(method string, begun int, message []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if method == pb.Watch_Watch_FullMethodName && begun == r.period {
		r.asked = append(r.asked, string(message))
	}
}

// bytesCodec leaves messages as they are.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "bytes" }

func (bytesCodec) Marshal(message any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*message.(*[]byte))}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, message any) error {
	*message.(*[]byte) = data.Materialize()
	return nil
}

// A stream that tells nothing while etcd serves is left for another: by who watches all leases when there is something to tell, and by who
// holds one before it matters, since others would take its silence for its end.
func TestMuteStreamIsLeft(t *testing.T) {
	h := newHarness(t, etcd.Config{Endpoints: etcdmembertest.Start(t).Endpoints(), Prefix: "/net", ProbeInterval: 200 * time.Millisecond, RequestTimeout: time.Second})
	h.Put("config", networkConfig, 0)
	wire := newRelay(t, h.config.Endpoints[0])
	h.config.Endpoints = []string{wire.endpoint}
	s := h.opened()
	sets := follow(t, s)
	held := h.acquire(s, claimOf(1))
	until(t, sets, "the lease", leases(1))

	challenge := h.key("claims/nodes/" + held.Lease().Attrs.Node)
	retry(t, "a watch of "+challenge, func() bool { return wire.watches(challenge) })
	for range 2 {
		wire.mute()
		key := "subnets/10.5.1.0-24"
		h.Put(key, flanneldValue, time.Hour)
		until(t, sets, "a lease more", leases(2))
		retry(t, "a new watch of "+challenge, func() bool { return wire.watches(challenge) })
		wire.mute()
		h.Delete(key)
		until(t, sets, "a lease less", leases(1))
	}
	select {
	case err := <-held.Lost():
		t.Error(err)
	default:
	}
}

// retry waits until something is so.
func retry(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("there is never %s", what)
		}
	}
}
