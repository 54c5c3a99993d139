package etcdtransport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tulle/internal/backoff"
	"tulle/internal/logthrottle"
)

// health knows from the requests made whether etcd serves this client.
type health struct {
	log       *slog.Logger
	endpoints string
	prefix    string
	username  string
	caFile    string
	certFile  string
	keyFile   string

	mu         sync.Mutex
	err        error     // nil: all is well
	served     time.Time // when the latest request that etcd served was made
	loggedText string
	loggedAt   time.Time
	loud       bool // the present trouble was logged, so its end will be
	refused    refusal
}

func newHealth(config Config) *health {
	endpoints := strings.Join(config.Endpoints, ",")
	return &health{
		// An etcd that is away is found out only after seconds.
		err:       fmt.Errorf("etcd at %s has not answered yet", endpoints),
		log:       config.Logger,
		endpoints: endpoints,
		prefix:    config.Prefix,
		username:  config.Username,
		caFile:    config.CAFile,
		certFile:  config.CertFile,
		keyFile:   config.KeyFile,
	}
}

// Trouble returns what keeps the client from its etcd, with endpoints and remedy; nil if nothing does.
func (c *Client) Trouble() error { return c.health.trouble() }

// Observe takes in the outcome of a watch, which no request tells, and when that was begun.
func (c *Client) Observe(begun time.Time, err error) {
	if denied(err) {
		c.health.refuse(c.health.prefix+"/", begun, err)
		return
	}
	c.health.observe(err)
}

func (h *health) trouble() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		return h.refused.err
	}
	return h.err
}

// errSilent is part of what is said of an etcd that is away, or too busy.
var errSilent = errors.New("does not answer")

const (
	// probeSoon is how long after a connection has come or gone etcd is asked whether it serves.
	probeSoon = time.Second
	// probeInTrouble is how often it is asked while it does not.
	probeInTrouble = 5 * time.Second
)

// Probe finds out early that etcd is away, or back, until ctx ends. Watches and leases only wait for it, and tell nobody.
func (c *Client) Probe(ctx context.Context) {
	due := time.NewTimer(probeSoon)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.dialer.changed:
			due.Reset(backoff.Jitter(probeSoon))
		case <-due.C:
			// A connection that came proves nothing against an etcd that serves. Where one went, a request that was made since does.
			if c.health.servedSince(c.dialer.lastLost()) {
				continue
			}
			// Health learns the answer on the way.
			if !c.serves(ctx) {
				due.Reset(backoff.Jitter(probeInTrouble))
			}
		}
	}
}

// unary sees every answer with all details; the etcd client drops some of them.
func (h *health) unary(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	made := time.Now()
	err := invoke(ctx, method, request, reply, cc, options...)
	keys := keysOf(request)
	if denied(err) {
		h.observe(nil)
		h.refuse(keys, made, err)
		return err
	}
	h.observe(err)
	if err == nil {
		h.serve(made)
		h.permit(keys, made)
	}
	return err
}

func (h *health) serve(made time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if made.After(h.served) {
		h.served = made
	}
}

// servedSince reports whether etcd has served a request that was made after t, and none has failed since.
func (h *health) servedSince(t time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err == nil && h.served.After(t)
}

// observe takes in the outcome of a request.
func (h *health) observe(err error) {
	if err != nil && status.Code(err) == codes.Canceled || errors.Is(err, context.Canceled) {
		return // our own doing
	}
	advice := h.advise(err)
	h.mu.Lock()
	defer h.mu.Unlock()
	if advice == nil {
		if h.loud {
			h.log.Info("etcd serves again", "endpoints", h.endpoints)
		}
		h.err, h.loud = nil, false
		return
	}
	fresh := h.err == nil
	h.err = advice
	text := advice.Error()
	if time.Since(h.loggedAt) < logthrottle.Lasting && (!fresh || text == h.loggedText) {
		return
	}
	h.loggedText, h.loggedAt, h.loud = text, time.Now(), true
	h.log.Warn("etcd does not serve", "err", text)
}

// explain replaces an error by the advice about it, if there is any.
func (h *health) explain(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		// The client has dropped the details; observe has seen them.
		if trouble := h.trouble(); trouble != nil {
			return trouble
		}
	}
	if advice := h.advise(err); advice != nil {
		return advice
	}
	return err
}

// advise returns nil if err shows that etcd works for us, else err with what to do about it.
func (h *health) advise(err error) error {
	if err == nil {
		return nil
	}
	known := rpctypes.Error(err)
	switch {
	case denied(err):
		if refused := h.lastRefused(); refused != nil {
			return refused
		}
		return h.refusalOf(h.prefix+"/", err)
	case errors.Is(known, rpctypes.ErrAuthFailed):
		return fmt.Errorf("etcd at %s: check --etcd-username %q and its password: %w", h.endpoints, h.username, known)
	case errors.Is(known, rpctypes.ErrUserEmpty):
		return fmt.Errorf("etcd at %s wants a user: give --etcd-username and --etcd-password-file: %w", h.endpoints, known)
	case errors.Is(known, rpctypes.ErrNoSpace):
		return fmt.Errorf("etcd at %s is full: compact and defragment it, then disarm its alarm: %w", h.endpoints, known)
	}
	// gRPC wraps what matters in its own words.
	text := cause(status.Convert(err).Message())
	code := status.Code(err)
	silent := code == codes.Unavailable || code == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)
	if why := refusedCertificate(h.certFile, text); why != nil && silent {
		return fmt.Errorf("etcd at %s: %w: %s", h.endpoints, why, text)
	}
	switch {
	case strings.Contains(text, "x509: certificate has expired or is not yet valid"):
		// The text has the time of this host.
		return fmt.Errorf("etcd at %s: %s: set the clock of this host (date) if that is wrong, else renew the certificate of etcd, or of the authority in %s",
			h.endpoints, text, option("--etcd-cafile", h.caFile))
	case strings.Contains(text, "x509: certificate signed by unknown authority"):
		return fmt.Errorf("etcd at %s: %s: check %s", h.endpoints, text, option("--etcd-cafile", h.caFile))
	case strings.Contains(text, "x509: certificate is valid for"), strings.Contains(text, "x509: certificate is not valid for any names"), strings.Contains(text, "x509: cannot validate certificate for"):
		return fmt.Errorf("etcd at %s: %s: give --etcd-endpoints a name or address that the certificate of etcd has, or renew that with this one", h.endpoints, text)
	case strings.Contains(text, "x509: certificate specifies an incompatible key usage"):
		return fmt.Errorf("etcd at %s: %s: the certificate of etcd is not for servers: renew it with serverAuth among its extended key usages", h.endpoints, text)
	case strings.Contains(text, "x509:"), strings.Contains(text, "tls:"):
		return fmt.Errorf("etcd at %s: %s: check %s, %s and %s", h.endpoints, text,
			option("--etcd-cafile", h.caFile), option("--etcd-certfile", h.certFile), option("--etcd-keyfile", h.keyFile))
	case silent:
		return fmt.Errorf("etcd at %s %w: check that it runs, and --etcd-endpoints: %s", h.endpoints, errSilent, text)
	case code == codes.Unauthenticated, code == codes.ResourceExhausted:
		return fmt.Errorf("etcd at %s refuses to serve: %s", h.endpoints, text)
	}
	return nil
}

// option is a flag with its file, if it is given one.
func option(flag, file string) string {
	if file == "" {
		return flag
	}
	return flag + " " + file
}

// cause is what a message of gRPC says of the connection that failed last, without what gRPC says around it.
func cause(text string) string {
	for _, before := range []string{"latest balancer error: ", "last connection error: "} {
		if _, after, ok := strings.Cut(text, before); ok {
			text = after
		}
	}
	if _, quoted, ok := strings.Cut(text, "connection error: desc = "); ok {
		if unquoted, err := strconv.Unquote(quoted); err == nil {
			text = unquoted
		}
	}
	for _, before := range []string{"transport: authentication handshake failed: ", "transport: Error while dialing: ", "error reading server preface: "} {
		text = strings.TrimPrefix(text, before)
	}
	return text
}
