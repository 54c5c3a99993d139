package etcd

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"tulle/internal/etcdtransport"
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
	QuestionWait   time.Duration // how long one of Ask's waits for the answer; default 6 s
	ProbeInterval  time.Duration // how often Watch makes sure that etcd is there and is the one it knows; default 20 s
	OwnerInterval  time.Duration // how often a host records that it still has its subnets, which orders expired ones by age; default 24 h
	PageSize       int64         // keys per answer of a listing; default 1000
	HoldbackTime   time.Duration // until a sudden loss is looked at again; default subnet.HoldbackTime

	// Uptime is a clock that neither jumps nor stands still while the machine is suspended; default CLOCK_BOOTTIME.
	Uptime func() time.Duration
}

// Store is a subnet.Store on etcd.
type Store struct {
	config   Config
	layout   layout
	client   *etcdtransport.Client
	log      *slog.Logger
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
	config.RequestTimeout = cmp.Or(config.RequestTimeout, 5*time.Second)
	config.AnswerTimeout = cmp.Or(config.AnswerTimeout, 2*time.Second)
	config.QuestionWait = cmp.Or(config.QuestionWait, 6*time.Second)
	config.ProbeInterval = cmp.Or(config.ProbeInterval, 20*time.Second)
	config.OwnerInterval = cmp.Or(config.OwnerInterval, 24*time.Hour)
	config.PageSize = cmp.Or(config.PageSize, 1000)
	config.HoldbackTime = cmp.Or(config.HoldbackTime, subnet.HoldbackTime)
	if config.Uptime == nil {
		config.Uptime = uptime
	}

	s := &Store{config: config, layout: newLayout(config.Prefix), log: config.Logger, other: make(chan struct{})}
	var err error
	s.client, err = etcdtransport.Open(etcdtransport.Config{
		Endpoints: config.Endpoints,
		CAFile:    config.CAFile, CertFile: config.CertFile, KeyFile: config.KeyFile,
		Username: config.Username, Password: config.Password, PasswordFile: config.PasswordFile,
		Prefix: s.layout.prefix, ProbeKey: s.layout.config(),
		Logger: config.Logger, RequestTimeout: config.RequestTimeout,
	})
	if err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close ends watches and stops keeping leases alive; it waits for both. The leases stay until they expire.
func (s *Store) Close() error {
	s.cancel()
	s.wg.Wait()
	return s.client.Close()
}

// Trouble returns what keeps the store from reaching its etcd, with endpoints and remedy; nil if nothing does.
func (s *Store) Trouble() error { return s.client.Trouble() }

// CertificateExpiry is when the client certificate ends; zero if there is none.
func (s *Store) CertificateExpiry() time.Time { return s.client.CertificateExpiry() }

// Addresses lists where etcd was reached so far, the latest last.
func (s *Store) Addresses() []netip.Addr { return s.client.Addresses() }

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

// seconds is a TTL as etcd counts it.
func seconds(ttl time.Duration) int64 {
	ttl = cmp.Or(ttl, subnet.DefaultTTL)
	return int64((ttl + time.Second - 1) / time.Second)
}

// LeaseDir is what precedes the text of a lease's subnets in its key.
func (s *Store) LeaseDir() string { return s.layout.leases() }

// ConfigKey implements subnet.Operator.
func (s *Store) ConfigKey() string { return s.layout.config() }
