//go:build linux

package main

import (
	"bytes"
	"strings"
	"testing"
)

// Where nobody knows which hosts there are, nothing can be told.
func TestDoctorOfTwoWithoutStore(t *testing.T) {
	dir := t.TempDir()
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"doctor", "--etcd-endpoints=http://127.0.0.1:1", "--run-dir=" + dir, "--state-dir=" + dir, "--subnet-file=" + dir + "/x", "10.5.1.2", "h2/web"}, &out, &errs)
	if code != exitUntold || !strings.Contains(errs.String(), "--etcd-endpoints") || out.Len() != 0 {
		t.Errorf("exit code %d, %q, %q", code, &out, &errs)
	}
}
