//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"testing"

	"tulle/internal/netns/netnstest"
	"tulle/ip/kernel/bridge"
)

// What cleanup prints of bridges can be pasted, and shows as it is.
func TestBridgesAreRemovedByWord(t *testing.T) {
	ns := netnstest.New(t)
	err := ns.Do(func() error {
		for _, args := range [][]string{
			{"$(id)", "type", "bridge"}, {"a\x1b;id", "type", "bridge"}, {"p\x1b", "master", "a\x1b;id", "type", "veth", "peer", "name", "q"},
		} {
			if out, err := exec.CommandContext(t.Context(), "ip", append([]string{"link", "add"}, args...)...).CombinedOutput(); err != nil {
				return fmt.Errorf("add link %q: %w: %s", args, err, out)
			}
		}
		if err := errors.Join(bridge.Mark("$(id)"), bridge.Mark("a\x1b;id")); err != nil {
			return err
		}
		var said bytes.Buffer
		if err := removeBridges(&said, true); err != nil {
			return err
		}
		const want = "ip link del dev '$(id)'\n" +
			`# bridge "a\x1b;id" stays, for containers hang on it ("p\x1b"): stop them and repeat this to remove it` + "\n"
		if said.String() != want {
			t.Errorf("says %q, want %q", &said, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
