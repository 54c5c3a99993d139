package etcdtransport

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"tulle/internal/regularfile"
)

// login adds a token to each request. The etcd client's own login would need etcd up at once and keep one password for ever.
type login struct {
	username string
	password func() (string, error)
	timeout  time.Duration

	mu    sync.Mutex // held while logging in, so that many requests cause one login
	token string     // empty: log in
	off   bool       // etcd has authentication switched off
}

func newLogin(config Config) (*login, error) {
	l := &login{
		username: config.Username,
		password: func() (string, error) { return config.Password, nil },
		timeout:  config.RequestTimeout,
	}
	if config.Password == "" {
		if config.PasswordFile == "" {
			return nil, fmt.Errorf("no password for etcd user %q: give --etcd-password-file", config.Username)
		}
		l.password = func() (string, error) {
			text, err := regularfile.ReadTarget(config.PasswordFile, maxCredential)
			if err != nil {
				return "", fmt.Errorf("read etcd password file: %w", err)
			}
			return strings.TrimRight(string(text), "\r\n"), nil
		}
	}
	if _, err := l.password(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *login) unary(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if method == pb.Auth_Authenticate_FullMethodName {
		return invoke(ctx, method, request, reply, cc, options...)
	}
	token, err := l.current(ctx, cc)
	if err != nil {
		return err
	}
	err = invoke(withToken(ctx, token), method, request, reply, cc, options...)
	if !refused(err) {
		return err
	}
	// The token is too old: etcd forgets it after five minutes without use, and when users change.
	if token, err = l.renew(ctx, cc, token); err != nil {
		return err
	}
	return invoke(withToken(ctx, token), method, request, reply, cc, options...)
}

// stream uses a new token, since a stream that is open cannot be given another.
func (l *login) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	l.mu.Lock()
	token, err := l.authenticate(ctx, cc)
	l.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return open(withToken(ctx, token), desc, cc, method, options...)
}

func (l *login) current(ctx context.Context, cc *grpc.ClientConn) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.token != "" || l.off {
		return l.token, nil
	}
	return l.authenticate(ctx, cc)
}

// renew returns a token other than the old one.
func (l *login) renew(ctx context.Context, cc *grpc.ClientConn, old string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.token != old {
		return l.token, nil
	}
	return l.authenticate(ctx, cc)
}

// authenticate logs in. l.mu is held.
func (l *login) authenticate(ctx context.Context, cc *grpc.ClientConn) (string, error) {
	password, err := l.password()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	r, err := pb.NewAuthClient(cc).Authenticate(ctx, &pb.AuthenticateRequest{Name: l.username, Password: password})
	l.token, l.off = r.GetToken(), errors.Is(rpctypes.Error(err), rpctypes.ErrAuthNotEnabled)
	if l.off {
		return "", nil
	}
	return l.token, err
}

func withToken(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
}

// refused reports whether etcd wants another token.
func refused(err error) bool {
	err = rpctypes.Error(err)
	return errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrAuthOldRevision)
}
