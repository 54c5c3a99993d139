//go:build linux

package etcdmembertest

import (
	"math"
	"net"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// Proxy is what "etcd grpc-proxy start" runs, with its defaults.
type Proxy struct {
	endpoint string
	server   *grpc.Server
	client   *clientv3.Client
	served   chan struct{}
	ends     []<-chan struct{}
}

// StartProxy runs a proxy in front of an etcd at a loopback address, which may be "127.0.0.1:0". The caller closes it.
func StartProxy(t testing.TB, address string, endpoints []string) *Proxy {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		MaxCallSendMsgSize: 3 << 19, MaxCallRecvMsgSize: math.MaxInt32, // 1.5 MB, and any
		DialOptions: []grpc.DialOption{
			grpc.WithUnaryInterceptor(grpcproxy.AuthUnaryClientInterceptor), grpc.WithStreamInterceptor(grpcproxy.AuthStreamClientInterceptor),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{endpoint: "http://" + listener.Addr().String(), client: client, served: make(chan struct{})}
	p.server = grpc.NewServer(
		grpc.MaxConcurrentStreams(math.MaxUint32),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: embed.DefaultGRPCKeepAliveMinTime}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: embed.DefaultGRPCKeepAliveInterval, Timeout: embed.DefaultGRPCKeepAliveTimeout}),
	)
	p.register(listener.Addr().String())
	go func() {
		defer close(p.served)
		_ = p.server.Serve(listener) // it ends with Close
	}()
	return p
}

func (p *Proxy) register(address string) {
	kv, kvEnd := grpcproxy.NewKvProxy(p.client)
	watch, watchEnd := grpcproxy.NewWatchProxy(p.client.Ctx(), zap.NewNop(), p.client)
	cluster, clusterEnd := grpcproxy.NewClusterProxy(zap.NewNop(), p.client, address, "")
	lease, leaseEnd := grpcproxy.NewLeaseProxy(p.client.Ctx(), p.client)
	p.ends = []<-chan struct{}{kvEnd, watchEnd, clusterEnd, leaseEnd}
	pb.RegisterKVServer(p.server, kv)
	pb.RegisterWatchServer(p.server, watch)
	pb.RegisterClusterServer(p.server, cluster)
	pb.RegisterLeaseServer(p.server, lease)
	pb.RegisterMaintenanceServer(p.server, grpcproxy.NewMaintenanceProxy(p.client))
	pb.RegisterAuthServer(p.server, grpcproxy.NewAuthProxy(p.client))
}

// Endpoint is the URL that it serves.
func (p *Proxy) Endpoint() string { return p.endpoint }

// Close ends it as a kill would: at once.
func (p *Proxy) Close() {
	p.server.Stop()
	<-p.served
	_ = p.client.Close() // "context canceled"
	for _, end := range p.ends {
		<-end
	}
}

// Address is Endpoint without its scheme, for the next proxy at the same place.
func (p *Proxy) Address() string { return p.endpoint[len("http://"):] }
