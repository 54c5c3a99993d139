// Package etcdmember runs an etcd server inside this process, for labs, tests and small clusters.
package etcdmember

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
)

// Member is a running etcd server.
type Member struct {
	server     *embed.Etcd
	endStreams context.CancelFunc
	endpoints  []string
}

// Start returns once the member has joined its cluster and serves clients. In a
// cluster of several members that needs a quorum of them. It gives up when ctx
// ends; after that ctx has no effect.
func Start(ctx context.Context, config Config) (*Member, error) {
	embedConfig, err := config.embed()
	if err != nil {
		return nil, err
	}
	intercept, endStreams := endableStreams()
	embedConfig.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.ChainStreamInterceptor(intercept)}
	server, err := embed.StartEtcd(embedConfig)
	if err != nil {
		return nil, fmt.Errorf("start etcd member %s: %w", embedConfig.Name, err)
	}
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		server.Close()
		return nil, fmt.Errorf("start etcd member %s: %w", embedConfig.Name, err)
	case <-ctx.Done():
		server.Close()
		return nil, fmt.Errorf("wait for etcd member %s to join its cluster: %w", embedConfig.Name, context.Cause(ctx))
	}
	return &Member{server: server, endStreams: endStreams, endpoints: boundEndpoints(server)}, nil
}

// Endpoints are the client URLs that the member listens on, with the port it
// was given where the configuration asked for port 0.
func (m *Member) Endpoints() []string { return m.endpoints }

// Close ends all client streams, stops the member and waits for it. Its data
// stay.
func (m *Member) Close() {
	m.endStreams()
	m.server.Close()
}

// Run runs a member until ctx ends, which is not an error. It calls ready with
// the member's endpoints once it serves clients.
func Run(ctx context.Context, config Config, ready func(endpoints []string)) error {
	member, err := Start(ctx, config)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	ready(member.Endpoints())
	select {
	case <-ctx.Done():
		member.Close()
		return nil
	case err := <-member.server.Err():
		member.Close()
		return fmt.Errorf("run etcd member %s: %w", config.Name, err)
	}
}

func boundEndpoints(server *embed.Etcd) []string {
	config := server.Config()
	if len(config.ListenClientUrls) != 1 {
		return urlTexts(config.ListenClientUrls)
	}
	bound := config.ListenClientUrls[0]
	if strings.HasPrefix(bound.Scheme, "http") {
		bound.Host = server.Clients[0].Addr().String()
	}
	return []string{bound.String()}
}

func urlTexts(urls []url.URL) []string {
	texts := make([]string, len(urls))
	for i, u := range urls {
		texts[i] = u.String()
	}
	return texts
}

// compactionRetention bounds how far back a watch may resume, and with it the
// growth of the database. Readers recover from a compaction by reading anew.
const compactionRetention = time.Hour
