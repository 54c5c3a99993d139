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
	return credentials.NewTLS(settings).ClientHandshake(ctx, authority, conn)
}

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

// outlived says that the client certificate in a file is past its time, which a server may answer by no more than hanging up.
// It returns nil for no file, and for one that it cannot read: a handshake will tell.
func outlived(certFile string) error {
	data, err := regularfile.ReadTarget(certFile, maxCredential)
	if certFile == "" || err != nil {
		return nil
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil || time.Now().Before(leaf.NotAfter) {
		return nil
	}
	return fmt.Errorf("client certificate %s expired at %s: put a new one in its place", certFile, leaf.NotAfter.Format(time.RFC3339))
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
