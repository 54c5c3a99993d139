//go:build linux

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBugReportOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "report.tar.gz"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(path, []byte("mine"), 0o600), os.Symlink(path, link)); err != nil {
		t.Fatal(err)
	}
	for _, output := range []string{path, link} {
		var out, errs bytes.Buffer
		code := run(t.Context(), []string{"bugreport", "--output", output, "--run-dir", dir}, &out, &errs)
		if text, err := os.ReadFile(path); code != exitUsage || !strings.Contains(errs.String(), "--output") || string(text) != "mine" || err != nil {
			t.Errorf("%s: code %d, %s, left %q, %v", output, code, errs.String(), text, err)
		}
	}
}

// Of a host that has nothing there is a report all the same, and for its owner alone.
func TestBugReportOfNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "report.tar.gz")
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"bugreport", "--output", path, "--run-dir", dir, "--subnet-file", filepath.Join(dir, "none"), "--etcd-endpoints", "http://127.0.0.1:1"}, &out, &errs)
	if code != exitOK {
		t.Fatalf("code %d, %s", code, errs.String())
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	for _, want := range []string{"missing: status.json: no tulled answers", "missing: leases.json: ", "missing: subnet.env: ", path + " holds about.txt, doctor.json\n", "look at it before you send it"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q:\n%s", want, out.String())
		}
	}
}
