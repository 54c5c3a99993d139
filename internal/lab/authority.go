//go:build linux

package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"tulle/internal/atomicfile"
)

// authority signs the certificates of etcd's members and of its clients.
type authority struct {
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// certFiles are the paths of PEM files.
type certFiles struct{ ca, cert, key string }

const clientCertName = "etcd-client"

// certLife is long enough for any lab. Certificates count from an hour ago.
const certLife = 30 * 24 * time.Hour

func newAuthority(dir string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	a := &authority{dir: dir, key: key}
	template := certTemplate("lab authority", certLife)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	return a, writePEM(a.caFile(), "CERTIFICATE", der)
}

func (a *authority) caFile() string { return filepath.Join(a.dir, "ca.pem") }

func certTemplate(name string, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(life),
	}
}

// server issues the certificate of a member. The member shows it as a client
// too: its HTTP gateway is one.
func (a *authority) server(name string, addr netip.Addr) (certFiles, error) {
	template := certTemplate(name, certLife)
	template.IPAddresses = []net.IP{addr.AsSlice()}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return a.write(a.dir, name, template)
}

// host issues the client certificate of a host, in place of an earlier one. It
// expires after life, which may be negative.
func (a *authority) host(h *Host, life time.Duration) (certFiles, error) {
	template := certTemplate(h.Name, life)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.write(h.Dir, clientCertName, template)
}

// RenewClientCert replaces the certificate that shows the host to etcd by one
// that expires after life, which may be negative.
func (h *Host) RenewClientCert(life time.Duration) error {
	_, err := h.lab.Etcd.authority.host(h, life)
	return err
}

// clientCert are the files of the host's certificate, which are made once.
func (h *Host) clientCert() (certFiles, error) {
	a := h.lab.Etcd.authority
	files := a.files(h.Dir, clientCertName)
	if _, err := os.Stat(files.key); err == nil {
		return files, nil
	}
	return a.host(h, certLife)
}

func (a *authority) files(dir, name string) certFiles {
	return certFiles{ca: a.caFile(), cert: filepath.Join(dir, name+".crt"), key: filepath.Join(dir, name+".key")}
}

func (a *authority) write(dir, name string, template *x509.Certificate) (certFiles, error) {
	files := a.files(dir, name)
	pair, err := a.issue(template)
	if err != nil {
		return files, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return files, fmt.Errorf("encode key of %s: %w", name, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return files, fmt.Errorf("write certificate of %s: %w", name, err)
	}
	if err := writePEM(files.cert, "CERTIFICATE", pair.Certificate[0]); err != nil {
		return files, err
	}
	return files, writePEM(files.key, "PRIVATE KEY", key)
}

func (a *authority) issue(template *x509.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("sign certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// client are the settings of a client inside this process.
func (a *authority) client() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	template := certTemplate("lab", certLife)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return &tls.Config{
		RootCAs:    roots,
		MinVersion: tls.VersionTLS12,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := a.issue(template)
			return &pair, err
		},
	}
}

func writePEM(path, kind string, der []byte) error {
	return atomicfile.Write(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
