package bugreport

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	var r Report
	r.Add("status.json", []byte(`{"node":"h1","url":"https://root:secret@10.0.0.1:2379"}`), nil)
	r.Add("log.txt", nil, errors.New("no tulled answers at 10.0.0.1"))
	var out bytes.Buffer
	now := time.Unix(1e9, 0)
	if err := r.Write(&out, "h1", now, HideCredentials, NewMask(nil).Hide); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"h1/status.json": `{"node":"h1","url":"https://ipv4-1:2379"}`,
		"h1/missing.txt": "log.txt: no tulled answers at ipv4-1\n",
	}
	if diff := cmp.Diff(want, read(t, &out, now)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func read(t *testing.T, from io.Reader, written time.Time) map[string]string {
	t.Helper()
	compressed, err := gzip.NewReader(from)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(compressed); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil || h.Mode != 0o600 || !h.ModTime.Equal(written) {
			t.Errorf("%s: %v, mode %o, %v", h.Name, err, h.Mode, h.ModTime)
		}
		files[h.Name] = string(text)
	}
}

func TestMask(t *testing.T) {
	m := NewMask([]netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fc00:5::/48")})
	for _, tt := range []struct{ in, want string }{
		{"10.5.3.0/24 via 192.0.2.7 dev eth0", "10.5.3.0/24 via ipv4-1 dev eth0"},
		{"https://192.0.2.7:2379, [2001:db8::7]:2379", "https://ipv4-1:2379, [ipv6-2]:2379"},
		{`"2001:DB8:0::7","::ffff:192.0.2.7"`, `"ipv6-2","ipv4-1"`},
		{"fc00:5:0:3::/64 lladdr 0a:00:00:00:00:01", "fc00:5:0:3::/64 lladdr 0a:00:00:00:00:01"},
		{"198.51.100.0-24&2001:db8:1::-64", "ipv4-3-24&ipv6-4-64"},
		{"::/0 0.0.0.0/0 127.0.0.1 ::1", "::/0 0.0.0.0/0 127.0.0.1 ::1"},
		{"at 12:34:56.789 it was 1.2.3 of 999.1.1.1", "at 12:34:56.789 it was 1.2.3 of 999.1.1.1"},
		{"fe80::1%eth0: down", "ipv6-5%eth0: down"},
		{"1.2.3.4: refused", "ipv4-6: refused"},
		{"2001:db8::7: refused", "ipv6-2: refused"},
	} {
		if got := string(m.Hide([]byte(tt.in))); got != tt.want {
			t.Errorf("%q becomes %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestHideCredentials(t *testing.T) {
	for in, want := range map[string]string{
		`"https://root:p%40ss@etcd:2379"`:                 `"https://etcd:2379"`,
		`{"Backend":{"Type":"ipsec","PSK" : "0123abcd"}}`: `{"Backend":{"Type":"ipsec","PSK" : "hidden"}}`,
		`{"psk":"a\"b","Network":"10.5.0.0/16"}`:          `{"psk":"hidden","Network":"10.5.0.0/16"}`,
		"http://a.example/x@y and b@c.example":            "http://a.example/x@y and b@c.example",
	} {
		if got := string(HideCredentials([]byte(in))); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
