package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestResolvers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if got := resolvers(path); got != nil {
		t.Errorf("without a file: %v", got)
	}
	const text = "# nameserver 192.0.2.1\nsearch example.org\nnameserver 192.0.2.2\n nameserver\tfe80::1%eth0 \nnameserver x\nnameserver\nnameserver 2001:db8::53"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("2001:db8::53")}
	if got := resolvers(path); !slices.Equal(got, want) {
		t.Errorf("resolvers = %v, want %v", got, want)
	}
}
