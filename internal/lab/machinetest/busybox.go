//go:build linux

package machinetest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"testing"
)

// fromScript tells a web client which address it comes from.
const fromScript = "#!/bin/sh\necho\necho \"$REMOTE_ADDR\"\n"

// Busybox is an archive with the root directory of containers: a static busybox, and below /www, for its web server,
// cgi-bin/from, which tells clients the address that they come from.
func Busybox(t *testing.T, busybox string) []byte {
	t.Helper()
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	add := func(header tar.Header, content []byte) { addTo(t, w, header, content) }
	add(tar.Header{Name: "bin/busybox", Mode: 0o755}, program)
	for _, applet := range []string{"cat", "dd", "httpd", "ip", "md5sum", "nc", "ping", "sh", "sleep", "timeout", "true", "wget"} {
		add(tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	add(tar.Header{Name: "www/cgi-bin/from", Mode: 0o755}, []byte(fromScript))
	add(tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o777}, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

// Image is an archive with an image of Busybox, as docker save writes them.
func Image(t *testing.T, name, busybox string) []byte {
	t.Helper()
	layer := Busybox(t, busybox)
	type rootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	config, err := json.Marshal(struct {
		Architecture string              `json:"architecture"`
		OS           string              `json:"os"`
		Config       map[string][]string `json:"config"`
		RootFS       rootFS              `json:"rootfs"`
	}{runtime.GOARCH, "linux", map[string][]string{"Env": {"PATH=/bin"}}, rootFS{"layers", []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}}})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal([]struct {
		Config           string
		RepoTags, Layers []string
	}{{"config.json", []string{name}, []string{"layer.tar"}}})
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	addTo(t, w, tar.Header{Name: "manifest.json", Mode: 0o644}, manifest)
	addTo(t, w, tar.Header{Name: "config.json", Mode: 0o644}, config)
	addTo(t, w, tar.Header{Name: "layer.tar", Mode: 0o644}, layer)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

func addTo(t *testing.T, w *tar.Writer, header tar.Header, content []byte) {
	t.Helper()
	header.Size = int64(len(content))
	if err := w.WriteHeader(&header); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
}
