package etcdtransport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"

	"tulle/internal/regularfile"
)

// fileCredentials makes TLS connections from files that it reads for each of them, so that certificates may be renewed
// on disk under a running daemon.
type fileCredentials struct {
	credentials.TransportCredentials // for all but the handshake
	caFile, certFile, keyFile        string
}

// newCredentials returns nil for plain http.
func newCredentials(config Config) (credentials.TransportCredentials, error) {
	secure, err := secureEndpoints(config.Endpoints)
	if err != nil {
		return nil, err
	}
	if !secure {
		if file := firstOf(config.CAFile, config.CertFile, config.KeyFile); file != "" {
			return nil, fmt.Errorf("TLS file %s has no use with endpoint %s: make the etcd endpoints https://", file, config.Endpoints[0])
		}
		return nil, nil
	}
	if (config.CertFile == "") != (config.KeyFile == "") {
		return nil, fmt.Errorf("client certificate %s%s lacks its other half: give both --etcd-certfile and --etcd-keyfile",
			config.CertFile, config.KeyFile)
	}
	c := &fileCredentials{caFile: config.CAFile, certFile: config.CertFile, keyFile: config.KeyFile}
	settings, err := c.load()
	if err != nil {
		return nil, err
	}
	c.TransportCredentials = credentials.NewTLS(settings)
	return c, nil
}

func (c *fileCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	settings, err := c.load()
	if err != nil {
		return nil, nil, err
	}
	made, info, err := credentials.NewTLS(settings).ClientHandshake(ctx, authority, conn)
	if err != nil {
		return nil, nil, err
	}
	return &alertConn{Conn: made}, info, nil
}

// alertConn is a connection of TLS 1.3, where a client may write before it hears that the server refuses its certificate and has hung up. What
// the server said then counts, not that it is gone.
type alertConn struct {
	net.Conn
	heard atomic.Bool // the server has said something: it did not refuse
}

func (c *alertConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Store(true)
	}
	return n, err
}

func (c *alertConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil && !c.heard.Load() {
		_ = c.SetReadDeadline(time.Now().Add(time.Second)) // else it is as before
		if _, readErr := c.Read(make([]byte, 1)); readErr != nil && strings.Contains(readErr.Error(), remoteAlert) {
			err = readErr
		}
	}
	return n, err
}

// remoteAlert precedes what a server says of why it hangs up.
const remoteAlert = "remote error: tls: "

func (c *fileCredentials) Clone() credentials.TransportCredentials {
	clone := *c
	return &clone
}

func (c *fileCredentials) load() (*tls.Config, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.caFile != "" {
		roots, err := regularfile.ReadTarget(c.caFile, maxCredential)
		if err != nil {
			return nil, fmt.Errorf("read etcd CA file: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(roots) {
			return nil, fmt.Errorf("etcd CA file %s holds no PEM certificate", c.caFile)
		}
	}
	if c.certFile != "" {
		pair, err := loadPair(c.certFile, c.keyFile)
		if err != nil {
			return nil, fmt.Errorf("load etcd client certificate %s with key %s: %w", c.certFile, c.keyFile, err)
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	return settings, nil
}

// maxCredential bounds each of the files, in bytes: the certificates of all public authorities have 250 kB.
const maxCredential = 16 << 20

func loadPair(certFile, keyFile string) (pair tls.Certificate, err error) {
	cert, certErr := regularfile.ReadTarget(certFile, maxCredential)
	key, keyErr := regularfile.ReadTarget(keyFile, maxCredential)
	if err := errors.Join(certErr, keyErr); err != nil {
		return pair, err
	}
	return tls.X509KeyPair(cert, key)
}

// certificate reads the client certificate in a file. It returns nil for no file, and for one that it cannot read: a handshake will tell.
func certificate(file string) *x509.Certificate {
	data, err := regularfile.ReadTarget(file, maxCredential)
	if file == "" || err != nil {
		return nil
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return leaf
}

// CertificateExpiry is when the client certificate ends that is in its file now; zero if there is none.
func (c *Client) CertificateExpiry() time.Time {
	if leaf := certificate(c.config.CertFile); leaf != nil {
		return leaf.NotAfter
	}
	return time.Time{}
}

// refusedCertificate says why etcd does not take the client certificate in a file, or its absence, if that is why a request has failed with
// text. A server may answer by no more than one word, or only hang up: what is known here of the certificate counts first.
func refusedCertificate(file, text string) error {
	_, alert, alerted := strings.Cut(text, remoteAlert)
	hungUp := slices.ContainsFunc([]string{"EOF", "connection reset by peer", "broken pipe"}, func(sign string) bool { return strings.Contains(text, sign) })
	required, now := strings.HasPrefix(alert, "certificate required"), time.Now().Format(time.RFC3339)
	leaf := certificate(file)
	switch {
	case leaf == nil && required:
		return errors.New("it wants a client certificate: give --etcd-certfile and --etcd-keyfile")
	case leaf == nil:
		return nil
	case time.Now().After(leaf.NotAfter):
		return fmt.Errorf("client certificate %s expired at %s, and the clock of this host says %s: set it if that is wrong (date), else put a new certificate in its place",
			file, leaf.NotAfter.Format(time.RFC3339), now)
	case time.Now().Before(leaf.NotBefore):
		return fmt.Errorf("client certificate %s is valid only from %s on, and the clock of this host says %s: set it if that is wrong (date)",
			file, leaf.NotBefore.Format(time.RFC3339), now)
	case (alerted || hungUp) && !forClients(leaf):
		return fmt.Errorf("client certificate %s is not for clients: put one in its place whose extended key usage has clientAuth", file)
	case required || strings.HasPrefix(alert, "unknown certificate authority"): // one of another authority than a server names is not even sent
		return fmt.Errorf("client certificate %s is of no authority that etcd trusts: put one in its place that is, or add its authority to the --trusted-ca-file of etcd", file)
	case strings.HasPrefix(alert, "expired certificate"):
		return fmt.Errorf("client certificate %s is expired for etcd, and valid until %s for this host, whose clock says %s: set the clock of etcd's host, or this one (date)",
			file, leaf.NotAfter.Format(time.RFC3339), now)
	}
	return nil
}

func forClients(leaf *x509.Certificate) bool {
	all := leaf.ExtKeyUsage
	return len(all)+len(leaf.UnknownExtKeyUsage) == 0 || slices.Contains(all, x509.ExtKeyUsageClientAuth) || slices.Contains(all, x509.ExtKeyUsageAny)
}

// withoutUsers strips endpoints of user and password, which etcd's client makes no use of, so that nothing ever shows them.
func withoutUsers(endpoints []string, log *slog.Logger) []string {
	user := regexp.MustCompile(`^(https?://)?.*@`)
	bare := slices.Clone(endpoints)
	for i, e := range endpoints {
		if !strings.HasPrefix(e, "unix") {
			bare[i] = user.ReplaceAllString(e, "$1")
		}
		if bare[i] != e {
			log.Warn("user in etcd endpoint is not used: give --etcd-username and --etcd-password-file", "endpoint", bare[i])
		}
	}
	return bare
}

// secureEndpoints reports whether the endpoints use TLS. The client speaks to all of them as it does to the first.
func secureEndpoints(endpoints []string) (bool, error) {
	if len(endpoints) == 0 {
		return false, errors.New("no etcd endpoint: give --etcd-endpoints")
	}
	secure := 0
	for _, e := range endpoints {
		if strings.HasPrefix(e, "https://") || strings.HasPrefix(e, "unixs://") {
			secure++
		}
	}
	if secure != 0 && secure != len(endpoints) {
		return false, fmt.Errorf("etcd endpoints %s mix http and https: make them all https://", strings.Join(endpoints, ","))
	}
	return secure != 0, nil
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
