package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"

	"tulle/subnet"
)

// Config says where etcd is and how to talk to it. Only Endpoints is needed.
type Config struct {
	Endpoints []string // URLs, all http or all https
	Prefix    string   // default flannel.DefaultPrefix

	// For https. Without CAFile the system's roots count. CertFile and KeyFile identify this client.
	// All three are read anew for every connection.
	CAFile, CertFile, KeyFile string

	// PasswordFile holds the password if Password is empty. It is read anew for every login.
	Username, Password, PasswordFile string

	Logger         *slog.Logger
	RequestTimeout time.Duration // for one request; default 5 s
	AnswerTimeout  time.Duration // how long a live host may take to defend its node id or address; default 2 s
	ProbeInterval  time.Duration // how often Watch makes sure that etcd is there and is the one it knows; default 20 s
	NoteInterval   time.Duration // how often a host notes that it still has its subnets, which orders expired ones by age; default 24 h
	PageSize       int64         // keys per answer of a listing; default 1000
	HoldbackTime   time.Duration // until a sudden loss is looked at again; default subnet.HoldbackTime

	// Uptime is a clock that neither jumps nor stands still while the machine is suspended; default CLOCK_BOOTTIME.
	Uptime func() time.Duration
}

const (
	keepAliveTime    = 10 * time.Second // of silence on a connection before etcd is pinged
	keepAliveTimeout = 5 * time.Second  // for the answer
	reconnectMax     = 5 * time.Second  // between attempts to connect
)

// Store is a subnet.Store on etcd.
type Store struct {
	config Config
	layout layout
	client *clientv3.Client
	log    *slog.Logger
	health *health
	dialer *dialer

	reached  reached
	streams  streams
	watching atomic.Pointer[watcher] // nil while no Watch runs; of several, the latest

	ctx    context.Context // ends with the store
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	other chan struct{} // closed when etcd turns out to have other data than before
}

var _ subnet.Store = (*Store)(nil)

var errClosed = errors.New("etcd store closed")

// Open makes a store without waiting for etcd.
func Open(config Config) (*Store, error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	config.Endpoints = withoutUsers(config.Endpoints, config.Logger)
	config.RequestTimeout = cmp.Or(config.RequestTimeout, 5*time.Second)
	config.AnswerTimeout = cmp.Or(config.AnswerTimeout, 2*time.Second)
	config.ProbeInterval = cmp.Or(config.ProbeInterval, 20*time.Second)
	config.NoteInterval = cmp.Or(config.NoteInterval, 24*time.Hour)
	config.PageSize = cmp.Or(config.PageSize, 1000)
	config.HoldbackTime = cmp.Or(config.HoldbackTime, subnet.HoldbackTime)
	if config.Uptime == nil {
		config.Uptime = uptime
	}

	s := &Store{config: config, layout: newLayout(config.Prefix), log: config.Logger, health: newHealth(config), dialer: newDialer(), other: make(chan struct{})}
	// The last interceptors are the innermost: health sees what login could not mend.
	unary := []grpc.UnaryClientInterceptor{s.dialer.unary, s.health.unary}
	options := []grpc.DialOption{grpc.WithStatsHandler(&s.reached), grpc.WithContextDialer(s.dialer.dial), grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           grpcbackoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.3, MaxDelay: reconnectMax},
		MinConnectTimeout: config.RequestTimeout,
	})}
	if config.Username != "" {
		login, err := newLogin(config)
		if err != nil {
			return nil, err
		}
		unary = append(unary, login.unary)
		options = append(options, grpc.WithChainStreamInterceptor(login.stream))
	}
	credentials, err := newCredentials(config)
	if err != nil {
		return nil, err
	}
	if credentials != nil {
		options = append(options, grpc.WithTransportCredentials(credentials))
	}
	if credentials == nil && config.Username != "" {
		s.log.Warn("etcd password travels unencrypted: use https:// endpoints", "endpoints", config.Endpoints)
	}
	s.client, err = clientv3.New(clientv3.Config{
		Endpoints:            config.Endpoints,
		DialTimeout:          config.RequestTimeout,
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveTimeout,
		PermitWithoutStream:  true,
		DialOptions:          append(options, grpc.WithChainUnaryInterceptor(unary...)),
		Logger:               zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("open etcd client: %w", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close ends watches and stops keeping leases alive; it waits for both. The leases stay until they expire.
func (s *Store) Close() error {
	s.cancel()
	s.wg.Wait()
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close etcd client: %w", err)
	}
	return nil
}

// Trouble returns what keeps the store from reaching its etcd, with endpoints and remedy; nil if nothing does.
func (s *Store) Trouble() error { return s.health.trouble() }

// otherData returns a channel that is closed when etcd next turns out to have other data than before.
func (s *Store) otherData() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.other
}

// dataChanged has all leases looked at.
func (s *Store) dataChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.other)
	s.other = make(chan struct{})
}

// scope returns a context that also ends with the store.
func (s *Store) scope(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

func (s *Store) get(ctx context.Context, key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.RequestTimeout)
	defer cancel()
	r, err := s.client.Get(ctx, key, options...)
	return r, s.health.explain(err)
}

// txn is a transaction: if all comparisons hold, then, else otherwise.
type txn struct {
	when      []clientv3.Cmp
	then      []clientv3.Op
	otherwise []clientv3.Op
}

// commit waits longer than a read does: not to know whether a write took effect costs a busy etcd yet another read.
func (s *Store) commit(ctx context.Context, t txn) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*s.config.RequestTimeout)
	defer cancel()
	r, err := s.client.Txn(ctx).If(t.when...).Then(t.then...).Else(t.otherwise...).Commit()
	return r, s.health.explain(err)
}

// revoke tidies up, also after ctx has ended. What it leaves behind expires by itself.
func (s *Store) revoke(ctx context.Context, id clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.RequestTimeout/2)
	defer cancel()
	if _, err := s.client.Revoke(ctx, id); err != nil {
		s.log.Debug("etcd lease left to expire", "lease", int64(id), "err", err)
	}
}

// seconds is a TTL as etcd counts it.
func seconds(ttl time.Duration) int64 {
	ttl = cmp.Or(ttl, subnet.DefaultTTL)
	return int64((ttl + time.Second - 1) / time.Second)
}

// LeaseDir is what precedes the text of a lease's subnets in its key.
func (s *Store) LeaseDir() string { return s.layout.leases() }

// ConfigKey implements subnet.Operator.
func (s *Store) ConfigKey() string { return s.layout.config() }
