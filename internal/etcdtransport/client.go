// Package etcdtransport carries requests and watches to an etcd, and knows nothing of what they are about.
//
// A Client keeps a connection to one of the endpoints, with files for TLS and passwords that may be renewed under it. It
// bounds requests in time, tells from them whether etcd serves (Client.Trouble), with what to do about it if not, and has
// watches share streams (Client.JoinStream). Of retrying it has the intervals only (ConnectBackoff, RequestBackoff), and
// Burst, which has a new watch pause: when to try again is up to who knows what the request was for.
package etcdtransport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
)

// Config says where etcd is and how to talk to it.
type Config struct {
	Endpoints []string // URLs, all http or all https

	// For https. Without CAFile the system's roots count. CertFile and KeyFile identify this client.
	// All three are read anew for every connection.
	CAFile, CertFile, KeyFile string

	// PasswordFile holds the password if Password is empty. It is read anew for every login.
	Username, Password, PasswordFile string

	Prefix   string // of all keys, without a slash at the end; to be named if rights to it are missing
	ProbeKey string // asked for to find out whether etcd serves

	Logger         *slog.Logger
	RequestTimeout time.Duration // for one request
}

const (
	keepAliveTime    = 10 * time.Second // of silence on a connection before etcd is pinged
	keepAliveTimeout = 5 * time.Second  // for the answer
	reconnectMax     = 5 * time.Second  // between attempts to connect
)

// Client talks to an etcd.
type Client struct {
	config  Config
	etcd    *clientv3.Client
	log     *slog.Logger
	health  *health
	dialer  *dialer
	reached reached
	streams streams
}

// Open makes a client without waiting for etcd.
func Open(config Config) (*Client, error) {
	config.Endpoints = withoutUsers(config.Endpoints, config.Logger)
	c := &Client{config: config, log: config.Logger, health: newHealth(config), dialer: newDialer()}
	// The last interceptors are the innermost: health sees what login could not mend.
	unary := []grpc.UnaryClientInterceptor{c.dialer.unary, c.health.unary}
	stream := []grpc.StreamClientInterceptor{endRefused}
	options := []grpc.DialOption{grpc.WithStatsHandler(&c.reached), grpc.WithContextDialer(c.dialer.dial), grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           grpcbackoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.3, MaxDelay: reconnectMax},
		MinConnectTimeout: config.RequestTimeout,
	})}
	if config.Username != "" {
		login, err := newLogin(config)
		if err != nil {
			return nil, err
		}
		unary = append(unary, login.unary)
		stream = append(stream, login.stream)
	}
	credentials, err := newCredentials(config)
	if err != nil {
		return nil, err
	}
	if credentials != nil {
		options = append(options, grpc.WithTransportCredentials(credentials))
	}
	if credentials == nil && config.Username != "" {
		c.log.Warn("etcd password travels unencrypted: use https:// endpoints", "endpoints", config.Endpoints)
	}
	c.etcd, err = clientv3.New(clientv3.Config{
		Endpoints:            config.Endpoints,
		DialTimeout:          config.RequestTimeout,
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveTimeout,
		PermitWithoutStream:  true,
		DialOptions:          append(options, grpc.WithChainUnaryInterceptor(unary...), grpc.WithChainStreamInterceptor(stream...)),
		Logger:               zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("open etcd client: %w", err)
	}
	return c, nil
}

// Close ends all requests and watches.
func (c *Client) Close() error {
	if err := c.etcd.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close etcd client: %w", err)
	}
	return nil
}

// Get reads a key, or a range of them.
func (c *Client) Get(ctx context.Context, key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.RequestTimeout)
	defer cancel()
	r, err := c.etcd.Get(ctx, key, options...)
	return r, c.health.explain(err)
}

// serves asks etcd whether it does.
func (c *Client) serves(ctx context.Context) bool {
	_, err := c.Get(ctx, c.config.ProbeKey, clientv3.WithCountOnly())
	return err == nil
}

// Txn is a transaction: if all comparisons of When hold, Then, else Else.
type Txn struct {
	When []clientv3.Cmp
	Then []clientv3.Op
	Else []clientv3.Op
}

// Commit waits longer than a read does: not to know whether a write took effect costs a busy etcd yet another read.
func (c *Client) Commit(ctx context.Context, t Txn) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.config.RequestTimeout)
	defer cancel()
	r, err := c.etcd.Txn(ctx).If(t.When...).Then(t.Then...).Else(t.Else...).Commit()
	return r, c.health.explain(err)
}

// Grant makes an etcd lease. It waits as long as Commit does.
func (c *Client) Grant(ctx context.Context, seconds int64) (*clientv3.LeaseGrantResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.config.RequestTimeout)
	defer cancel()
	r, err := c.etcd.Grant(ctx, seconds)
	return r, c.health.explain(err)
}

// Renew prolongs an etcd lease. It tries once: the client's own way tries without a pause while etcd is away. A lease that
// etcd does not know is rpctypes.ErrLeaseNotFound.
func (c *Client) Renew(ctx context.Context, id clientv3.LeaseID) (*pb.LeaseKeepAliveResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.RequestTimeout)
	defer cancel()
	r, err := c.keepAlive(ctx, id)
	if err != nil {
		return nil, c.health.explain(clientv3.ContextError(ctx, err))
	}
	if r.TTL <= 0 {
		return nil, rpctypes.ErrLeaseNotFound
	}
	return r, nil
}

func (c *Client) keepAlive(ctx context.Context, id clientv3.LeaseID) (*pb.LeaseKeepAliveResponse, error) {
	stream, err := clientv3.RetryLeaseClient(c.etcd).LeaseKeepAlive(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
		return nil, err
	}
	return stream.Recv()
}

// Revoke ends an etcd lease, also after ctx has ended. One that it leaves behind expires by itself.
func (c *Client) Revoke(ctx context.Context, id clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.config.RequestTimeout/2)
	defer cancel()
	if _, err := c.etcd.Revoke(ctx, id); err != nil {
		c.log.Debug("etcd lease left to expire", "lease", int64(id), "err", err)
	}
}

// Overloaded reports whether an error of a request tells that etcd is there but did not get it done.
func (c *Client) Overloaded(err error) bool {
	var answer rpctypes.EtcdError
	if errors.As(err, &answer) {
		return answer.Code() == codes.Unavailable || errors.Is(err, rpctypes.ErrTooManyRequests)
	}
	return errors.Is(err, errSilent) && c.etcd.ActiveConnection().GetState() == connectivity.Ready
}

// Reconnects signals whenever the connection to etcd is there again after a break, until ctx ends.
func (c *Client) Reconnects(ctx context.Context, reconnected chan<- struct{}) {
	conn := c.etcd.ActiveConnection()
	for state := conn.GetState(); conn.WaitForStateChange(ctx, state); {
		// gRPC lets requests through before it says that the connection is ready: the first may be told of after an answer that came over it.
		if state = conn.GetState(); state != connectivity.Ready || !c.reached.again() {
			continue
		}
		select {
		case reconnected <- struct{}{}:
		default:
		}
	}
}
