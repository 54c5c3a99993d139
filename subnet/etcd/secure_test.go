//go:build linux

package etcd_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"tulle/internal/etcdmember"
	"tulle/internal/etcdmember/etcdmembertest"
	"tulle/subnet"
	"tulle/subnet/etcd"
)

// authority is a CA made for one test.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = a.sign(template, template, &key.PublicKey)
	return a
}

func (a *authority) sign(template, parent *x509.Certificate, key *ecdsa.PublicKey) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// issue returns a certificate for loopback servers and for clients.
func (a *authority) issue() tls.Certificate { return a.issueUntil(time.Now().Add(time.Hour)) }

func (a *authority) issueUntil(end time.Time) tls.Certificate {
	return a.issueFor(end.Add(-2*time.Hour), end, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

func (a *authority) issueFor(begin, end time.Time, purposes ...x509.ExtKeyUsage) tls.Certificate {
	return a.issueTo(net.IPv4(127, 0, 0, 1), begin, end, purposes...)
}

func (a *authority) issueTo(address net.IP, begin, end time.Time, purposes ...x509.ExtKeyUsage) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	cert := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "host"},
		NotBefore: begin, NotAfter: end,
		IPAddresses: []net.IP{address},
		ExtKeyUsage: purposes,
	}, a.cert, &key.PublicKey)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func writePair(t *testing.T, certFile, keyFile string, pair tls.Certificate) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, certFile, "CERTIFICATE", pair.Certificate[0])
	writePEM(t, keyFile, "PRIVATE KEY", key)
}

func TestTLSWithCAOnly(t *testing.T) {
	member := etcdmembertest.Start(t)
	ca := newAuthority(t, "one")
	wire := newLink(t, member.Endpoints()[0], &tls.Config{Certificates: []tls.Certificate{ca.issue()}, NextProtos: []string{"h2"}})
	file := filepath.Join(t.TempDir(), "ca.pem")
	writePEM(t, file, "CERTIFICATE", ca.cert.Raw)
	h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/net"})
	h.config.Endpoints, h.config.CAFile = []string{"https://" + wire.address()}, file
	if _, err := h.opened().Snapshot(t.Context()); err != nil {
		t.Error(err)
	}

	writePEM(t, file, "CERTIFICATE", newAuthority(t, "other").cert.Raw)
	h.config.RequestTimeout = 500 * time.Millisecond
	_, err := h.opened().Snapshot(t.Context())
	if err == nil || !contains(err.Error(), "--etcd-cafile", "x509", wire.address()) {
		t.Errorf("Snapshot with another CA = %v, want the reason and the remedy", err)
	}
	h.config.CAFile = ""
	if _, err := h.opened().Snapshot(t.Context()); err == nil {
		t.Error("Snapshot with the system's roots = nil, want a refusal")
	}
}

// What is wrong with the connection comes first, in no words of gRPC's, with the file that it concerns; of a certificate that is past its time, or before it, the
// clock may be wrong.
func TestErrorsOfConnectionsNameTheirCause(t *testing.T) {
	member := etcdmembertest.Start(t)
	ca := newAuthority(t, "one")
	good, other := filepath.Join(t.TempDir(), "ca.pem"), filepath.Join(t.TempDir(), "other.pem")
	writePEM(t, good, "CERTIFICATE", ca.cert.Raw)
	writePEM(t, other, "CERTIFICATE", newAuthority(t, "one").cert.Raw)
	serve := func(pair tls.Certificate) string {
		return "https://" + newLink(t, member.Endpoints()[0], &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}).address()
	}
	sound, expired := serve(ca.issue()), serve(ca.issueUntil(time.Now().Add(-time.Minute)))
	begin, end := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	clients, elsewhere := ca.issueFor(begin, end, x509.ExtKeyUsageClientAuth), ca.issueTo(net.IPv4(127, 0, 0, 2), begin, end, x509.ExtKeyUsageServerAuth)
	for name, test := range map[string]struct {
		endpoint, caFile, cause string
		want                    []string
	}{
		"another CA":        {sound, other, "tls: failed to verify certificate: x509: certificate signed by unknown authority", []string{"check --etcd-cafile", other}},
		"expired":           {expired, good, "tls: failed to verify certificate: x509: certificate has expired or is not yet valid", []string{"current time " + time.Now().UTC().Format(time.DateOnly), "set the clock", good}},
		"for clients only":  {serve(clients), good, "tls: failed to verify certificate: x509: certificate specifies an incompatible key usage", []string{"not for servers", "serverAuth"}},
		"another name":      {strings.Replace(sound, "127.0.0.1", "localhost", 1), good, "tls: failed to verify certificate: x509: certificate is not valid for any names", []string{"localhost", "give --etcd-endpoints a name"}},
		"another address":   {serve(elsewhere), good, "tls: failed to verify certificate: x509: certificate is valid for 127.0.0.2, not 127.0.0.1", []string{"give --etcd-endpoints a name"}},
		"nobody is there":   {"http://127.0.0.1:1", "", "does not answer", []string{"connection refused", "--etcd-endpoints"}},
		"TLS without a CA":  {sound, "", "tls: failed to verify certificate: x509: certificate signed by unknown authority", []string{"check --etcd-cafile"}},
		"no TLS at the end": {strings.Replace(member.Endpoints()[0], "http:", "https:", 1), good, "does not answer", []string{"EOF"}},
	} {
		h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/net"})
		h.config.Endpoints, h.config.CAFile, h.config.RequestTimeout = []string{test.endpoint}, test.caFile, 500*time.Millisecond
		_, err := h.opened().Snapshot(t.Context())
		if err == nil {
			t.Errorf("%s: Snapshot = nil, want an error", name)
			continue
		}
		_, text, _ := strings.Cut(err.Error(), "etcd at "+test.endpoint)
		if !strings.HasPrefix(strings.TrimLeft(text, ": "), test.cause) || !contains(text, test.want...) ||
			contains(text, "rpc error") || contains(text, "desc =") || contains(text, "balancer") || contains(text, "transport:") {
			t.Errorf("%s: Snapshot = %v, want %q first, then %q", name, err, test.cause, test.want)
		}
	}
}

// An etcd that refuses the certificate of this host says so in one word, or only hangs up. What is known here of the certificate says the rest.
func TestErrorsOfClientCertificatesNameTheirCause(t *testing.T) {
	dir, ca := t.TempDir(), newAuthority(t, "one")
	file := func(name string) string { return filepath.Join(dir, name) }
	writePEM(t, file("ca.pem"), "CERTIFICATE", ca.cert.Raw)
	writePair(t, file("etcd.pem"), file("etcd-key.pem"), ca.issue())
	member := etcdmembertest.Restart(t, etcdmember.Config{
		DataDir: etcdmembertest.ScratchDir(t), ListenClientURLs: []string{"https://127.0.0.1:0"},
		CertFile: file("etcd.pem"), KeyFile: file("etcd-key.pem"), TrustedCAFile: file("ca.pem"),
	})
	t.Cleanup(func() { member.Close() })
	endpoint, now, hour := member.Endpoints()[0], time.Now(), time.Hour
	cert, today := file("cert.pem"), now.Format(time.DateOnly)
	for name, test := range map[string]struct {
		pair tls.Certificate
		want string
		more []string
	}{
		"expired":           {ca.issueUntil(now.Add(-time.Minute)), "client certificate " + cert + " expired at ", []string{"the clock of this host says " + today, "(date)"}},
		"not valid yet":     {ca.issueFor(now.Add(hour), now.Add(2*hour), x509.ExtKeyUsageClientAuth), "client certificate " + cert + " is valid only from ", []string{"the clock of this host says " + today, "(date)"}},
		"unknown authority": {newAuthority(t, "other").issue(), "client certificate " + cert + " is of no authority that etcd trusts", nil},
		"same name":         {newAuthority(t, "one").issue(), "client certificate " + cert + " is of no authority that etcd trusts", nil},
		"for servers only":  {ca.issueFor(now.Add(-hour), now.Add(hour), x509.ExtKeyUsageServerAuth), "client certificate " + cert + " is not for clients", []string{"clientAuth"}},
		"none":              {tls.Certificate{}, "it wants a client certificate", []string{"--etcd-certfile"}},
	} {
		h := newHarness(t, etcd.Config{Endpoints: []string{endpoint}, Prefix: "/net", CAFile: file("ca.pem"), RequestTimeout: 500 * time.Millisecond})
		if test.pair.Certificate != nil {
			writePair(t, cert, file("key.pem"), test.pair)
			h.config.CertFile, h.config.KeyFile = cert, file("key.pem")
		}
		_, err := h.opened().Snapshot(t.Context())
		if first := "etcd at " + endpoint + ": " + test.want; err == nil || !contains(err.Error(), append(test.more, first)...) {
			t.Errorf("%s: Snapshot = %v, want %q first, then %q", name, err, first, test.more)
		}
	}
}

// TestTLSRotation changes CA and client certificate on disk under an open store.
func TestTLSRotation(t *testing.T) {
	member := etcdmembertest.Start(t)
	ca := newAuthority(t, "one")
	current := func() *tls.Config {
		return &tls.Config{
			Certificates: []tls.Certificate{ca.issue()}, NextProtos: []string{"h2"},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool(),
		}
	}
	settings := make(chan *tls.Config, 1)
	settings <- current()
	wire := newLink(t, member.Endpoints()[0], &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := <-settings
		settings <- now
		return now, nil
	}})
	dir := t.TempDir()
	h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/net"})
	h.Put("config", networkConfig, 0)
	h.config.Endpoints = []string{"https://" + wire.address()}
	h.config.CAFile = filepath.Join(dir, "ca.pem")
	h.config.CertFile, h.config.KeyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func() {
		writePEM(t, h.config.CAFile, "CERTIFICATE", ca.cert.Raw)
		writePair(t, h.config.CertFile, h.config.KeyFile, ca.issue())
	}
	write()
	s := h.opened()
	sets := follow(t, s)
	until(t, sets, "no lease", leases(0))
	if at := s.CertificateExpiry(); time.Until(at) <= 0 {
		t.Errorf("the client certificate ends at %v, want later than now", at)
	}

	wire.cut()
	ca = newAuthority(t, "two")
	<-settings
	settings <- current()
	write()
	wire.mend()
	h.Put("subnets/10.5.1.0-24", flanneldValue, time.Hour)
	until(t, sets, "one lease", leases(1))

	// With one that has expired nothing goes, and the reason is named though the server may only hang up.
	h.config.RequestTimeout = 500 * time.Millisecond
	writePair(t, h.config.CertFile, h.config.KeyFile, ca.issueUntil(time.Now().Add(-time.Minute)))
	if at := s.CertificateExpiry(); at.IsZero() || time.Until(at) > 0 {
		t.Errorf("the client certificate ends at %v, want what is in its file now: a minute ago", at)
	}
	if _, err := h.opened().Snapshot(t.Context()); err == nil || !strings.Contains(err.Error(), h.config.CertFile+" expired at ") {
		t.Errorf("Snapshot with an expired client certificate = %v, want that said", err)
	}

	// Without its client certificate, nothing goes.
	h.config.CertFile, h.config.KeyFile = "", ""
	bare := h.opened()
	if _, err := bare.Snapshot(t.Context()); err == nil {
		t.Error("Snapshot without client certificate = nil, want a refusal")
	}
	if at := bare.CertificateExpiry(); !at.IsZero() {
		t.Errorf("no client certificate ends at %v", at)
	}
}

func TestOpenRefusesContradictions(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, "one")
	caFile, certFile, keyFile := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePEM(t, caFile, "CERTIFICATE", ca.cert.Raw)
	writePair(t, certFile, keyFile, ca.issue())
	secure, insecure := []string{"https://127.0.0.1:1"}, []string{"http://127.0.0.1:1"}
	for name, test := range map[string]struct {
		config etcd.Config
		want   []string
	}{
		"CA file with http":        {etcd.Config{Endpoints: insecure, CAFile: caFile}, []string{caFile, "https://"}},
		"mixed endpoints":          {etcd.Config{Endpoints: append(insecure, secure...)}, []string{"http and https"}},
		"no endpoints":             {etcd.Config{}, []string{"--etcd-endpoints"}},
		"certificate without key":  {etcd.Config{Endpoints: secure, CertFile: certFile}, []string{"--etcd-keyfile"}},
		"missing CA file":          {etcd.Config{Endpoints: secure, CAFile: dir + "/none"}, []string{dir + "/none"}},
		"CA file that is none":     {etcd.Config{Endpoints: secure, CAFile: keyFile}, []string{keyFile}},
		"user without password":    {etcd.Config{Endpoints: insecure, Username: "u"}, []string{"--etcd-password-file"}},
		"missing password file":    {etcd.Config{Endpoints: insecure, Username: "u", PasswordFile: dir + "/none"}, []string{dir + "/none"}},
		"key of another authority": {etcd.Config{Endpoints: secure, CertFile: caFile, KeyFile: keyFile}, []string{caFile, keyFile}},
	} {
		s, err := etcd.Open(test.config)
		if err == nil {
			s.Close()
			t.Errorf("%s: Open = nil, want an error", name)
		} else if !contains(err.Error(), test.want...) {
			t.Errorf("%s: Open = %v, want it to name %q", name, err, test.want)
		}
	}
}

// Endpoints are in every message about etcd: what of them is secret is not.
func TestNoSecretIsShown(t *testing.T) {
	const secret = "hunter2"
	var shown bytes.Buffer
	for _, endpoint := range []string{"http://root:hunter2@127.0.0.1:1", "http://root:hunter2/@x@127.0.0.1:1", "root:hunter2@127.0.0.1:1"} {
		s, err := etcd.Open(etcd.Config{
			Endpoints: []string{endpoint}, Username: "root", Password: secret,
			RequestTimeout: 200 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&shown, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Snapshot(t.Context())
		fmt.Fprintln(&shown, err, s.Trouble())
		s.Close()
		if text := shown.String(); strings.Contains(text, secret) || !strings.Contains(text, "127.0.0.1:1") || !strings.Contains(text, "--etcd-username") {
			t.Errorf("shown is\n%s", text)
		}
		shown.Reset()
	}
}

func TestUserAndPassword(t *testing.T) {
	config := etcdmember.Config{DataDir: etcdmembertest.ScratchDir(t)}
	member := etcdmembertest.Restart(t, config)
	t.Cleanup(func() { member.Close() })
	config.ListenClientURLs = member.Endpoints()
	wire := newLink(t, member.Endpoints()[0], nil)
	h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/net"})
	h.Put("config", networkConfig, 0)
	h.requireUsers("first-secret", below("/net/", mayWrite))

	h.config.Endpoints = []string{"http://" + wire.address()}
	h.config.ProbeInterval = 200 * time.Millisecond
	if _, err := h.opened().Snapshot(t.Context()); err == nil || !contains(err.Error(), "--etcd-username") {
		t.Errorf("Snapshot without user = %v, want the remedy", err)
	}
	h.config.Username, h.config.Password = "tulle", "wrong-secret"
	_, err := h.opened().Snapshot(t.Context())
	if err == nil || !contains(err.Error(), "--etcd-username") || contains(err.Error(), "wrong-secret") {
		t.Errorf("Snapshot with a wrong password = %v, want the remedy and no password", err)
	}
	h.config.Prefix, h.config.Password = "/other", "first-secret"
	if _, err := h.opened().Snapshot(t.Context()); err == nil || !contains(err.Error(), "/other/", `"tulle"`) {
		t.Errorf("Snapshot without permission = %v, want prefix and user", err)
	}

	file := filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first-secret")
	h.config.Prefix, h.config.Password, h.config.PasswordFile = "/net", "", file
	s := h.opened()
	sets := follow(t, s)
	held := h.acquire(s, claimOf(1))
	until(t, sets, "the lease", leases(1))

	// A restart makes etcd forget all tokens; the password changes meanwhile.
	root, err := clientv3.New(clientv3.Config{
		Endpoints: member.Endpoints(), Username: "root", Password: "root-secret", DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.UserChangePassword(t.Context(), "tulle", "second-secret"); err != nil {
		t.Fatal(err)
	}
	write("second-secret")
	wire.cut()
	h.raw.Close()
	root.Close()
	member.Close()
	member = etcdmembertest.Restart(t, config)
	wire.mend()
	attrs := claimOf(1).Attrs
	attrs.BackendType = "host-gw"
	deadline := time.Now().Add(20 * time.Second)
	for err := held.Update(t.Context(), attrs); err != nil; err = held.Update(t.Context(), attrs) {
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	until(t, sets, "the update", func(set subnet.Set) bool {
		return len(set.Leases) == 1 && set.Leases[0].Attrs.BackendType == "host-gw"
	})
	if err := held.Release(t.Context()); err != nil {
		t.Error(err)
	}
	until(t, sets, "no lease", leases(0))
}
