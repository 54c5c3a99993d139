package identity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tulle/subnet"
)

func TestNodeID(t *testing.T) {
	dir := t.TempDir()
	machineID := filepath.Join(dir, "machine-id")
	first := true
	get := func(explicit string) string {
		t.Helper()
		id, made, err := NodeID(explicit, machineID, dir)
		if err != nil {
			t.Fatal(err)
		}
		if made != first {
			t.Errorf("id %s was made just now: %t, want %t", id, made, first)
		}
		first = false
		return id
	}
	random := get("")
	if again := get(""); again != random || subnet.CheckNodeID(random) != nil {
		t.Errorf("without a machine id: %q, then %q", random, again)
	}
	if info, err := os.Stat(filepath.Join(dir, "node-id")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("stored id: %v, %v", info, err)
	}
	for _, unset := range []string{"", "\n", "uninitialized\n"} {
		put(t, machineID, unset)
		if got := get(""); got != random {
			t.Errorf("machine id %q: %q, want the stored one %q", unset, got, random)
		}
	}
	const machine = "0123456789abcdef0123456789abcdef"
	put(t, machineID, machine+"\n")
	derived := get("")
	if derived == random || strings.Contains(machine, derived) || derived != get("") {
		t.Errorf("derived %q from %q", derived, machine)
	}
	if got := get("rack-7.node_1"); got != "rack-7.node_1" {
		t.Errorf("explicit id became %q", got)
	}
	for _, bad := range []string{"-x", "a/b", "a b", "é", strings.Repeat("x", 65)} {
		if id, _, err := NodeID(bad, machineID, dir); err == nil || !strings.Contains(err.Error(), "letters") {
			t.Errorf("%q: %q, %v, want an error that says what is allowed", bad, id, err)
		}
	}
}

func TestStoredIDIsNotGuessed(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "node-id"), "\x00\x00")
	if id, _, err := NodeID("", filepath.Join(dir, "none"), dir); err == nil || !strings.Contains(err.Error(), "delete the file") {
		t.Errorf("%q, %v, want an error with the remedy", id, err)
	}
}

func TestInstanceLastsAsLongAsTheRunDirectory(t *testing.T) {
	instance := func(dir string) string {
		t.Helper()
		id, _, err := Instance(dir)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	dir := filepath.Join(t.TempDir(), "run")
	first := instance(dir)
	if again := instance(dir); again != first {
		t.Errorf("a restart changes it from %q to %q", first, again)
	}
	if other := instance(t.TempDir()); other == first {
		t.Errorf("two machines share %q", other)
	}
}

func TestProbeKeyLastsAsLongAsTheRunDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	first, unkept, err := ProbeKey(dir)
	if err != nil || unkept != nil || first == [16]byte{} {
		t.Fatalf("%x, %v, %v", first, unkept, err)
	}
	if again, _, err := ProbeKey(dir); again != first || err != nil {
		t.Errorf("a restart changes it from %x to %x, %v", first, again, err)
	}
	if other, _, err := ProbeKey(t.TempDir()); other == first || err != nil {
		t.Errorf("two machines share %x, %v", other, err)
	}
	if info, err := os.Stat(ProbeKeyPath(dir)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its file: %v, %v", info, err)
	}
	for _, bad := range []string{"rack-7", "00112233445566778899aabbccddee", "00112233445566778899aabbccddeeff00"} {
		put(t, ProbeKeyPath(dir), bad)
		if key, _, err := ProbeKey(dir); err == nil || !strings.Contains(err.Error(), "delete the file") {
			t.Errorf("%q: %x, %v, want an error with the remedy", bad, key, err)
		}
	}
}
