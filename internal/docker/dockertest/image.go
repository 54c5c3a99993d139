//go:build linux

package dockertest

import (
	"archive/tar"
	"bytes"
	"os"
	"testing"
)

// Image is the name of the image that Import makes.
const Image = "busybox"

// fromScript tells a web client which address it comes from.
const fromScript = "#!/bin/sh\necho\necho \"$REMOTE_ADDR\"\n"

// Import makes an image of a static busybox, without any registry. Its command serves /www on port 80, where cgi-bin/from
// tells clients the address that they come from.
func (m *Machine) Import(t *testing.T, busybox string) {
	t.Helper()
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	add := func(header tar.Header, content []byte) {
		header.Size = int64(len(content))
		if err := w.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Name: "bin/busybox", Mode: 0o755}, program)
	for _, applet := range []string{"cat", "dd", "httpd", "ip", "md5sum", "ping", "sh", "sleep", "timeout", "true", "wget"} {
		add(tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	add(tar.Header{Name: "www/cgi-bin/from", Mode: 0o755}, []byte(fromScript))
	add(tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o777}, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := m.Command(t.Context(), "docker", "import", "--change", `CMD ["httpd", "-f", "-p", "80", "-h", "/www"]`, "-", Image)
	cmd.Stdin = &archive
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("import image on %s: %v: %s", m, err, out)
	}
}
