//go:build linux

package cniplugin_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// killEnv makes this test's program, under the name of a delegate, kill the plugin that started it: "before" it does anything,
// "during" its work, which it goes on with, or "after". A number kills that many generations up.
const killEnv = "TULLE_TEST_KILL"

// asDelegate is what the test's program does when a plugin starts it. It returns only if it failed.
func asDelegate() (ran bool, err error) {
	when, generation, ok := strings.Cut(os.Getenv(killEnv), ":")
	name := filepath.Base(os.Args[0])
	if !ok || name != "bridge" && name != "host-local" {
		return false, nil
	}
	wrapped := filepath.Join(built().cni, name)
	if !strings.HasPrefix(generation, name) || os.Getenv("CNI_COMMAND") != "ADD" {
		return true, syscall.Exec(wrapped, []string{wrapped}, os.Environ())
	}
	plugin := os.Getppid()
	if name == "host-local" {
		if plugin, err = parentOf(plugin); err != nil {
			return true, err
		}
	}
	switch when {
	case "before":
		return true, syscall.Kill(plugin, syscall.SIGKILL)
	case "during":
		if err := syscall.Kill(plugin, syscall.SIGKILL); err != nil {
			return true, err
		}
		return true, syscall.Exec(wrapped, []string{wrapped}, os.Environ())
	default:
		cmd := exec.Command(wrapped)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		return true, errors.Join(cmd.Run(), syscall.Kill(plugin, syscall.SIGKILL))
	}
}

func parentOf(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name before it, in parentheses, may contain anything.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	return strconv.Atoi(fields[1])
}

// killers is a directory of delegates that kill the plugin.
func killers(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"bridge", "host-local"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// However far an ADD came before the plugin was killed, DEL, or GC alone, takes all of it back: also what a delegate does that is
// still at work.
func TestKilled(t *testing.T) {
	h := newDualHost(t)
	path := "CNI_PATH=" + killers(t) + ":" + built().cni
	for _, delegate := range []string{"bridge", "host-local"} {
		for _, when := range []string{"before", "during", "after"} {
			for _, undo := range []string{"DEL", "GC"} {
				t.Run(when+" "+delegate+", then "+undo, func(t *testing.T) {
					c := newContainer(t, "c")
					_, stderr, err := h.cni(c, "eth0", "ADD", h.conf(nil), path, killEnv+"="+when+":"+delegate)
					if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
						t.Fatalf("ADD = %v, want it to be killed\n%s", err, stderr)
					}
					if undo == "DEL" {
						h.must(t, c, "eth0", "DEL", h.conf(nil))
					}
					h.must(t, container{}, "", "GC", h.conf(map[string]any{"cni.dev/valid-attachments": []string{}}))
					wantOnlyLoopback(t, c)
					h.wantNothingLeft(t)
				})
			}
		}
	}
}

// rounds is how often an ADD is killed at a random moment.
func rounds() int {
	if testing.Short() { // as under the race detector, which sees nothing of processes that end
		return 60
	}
	return 300
}

func TestKilledAtAnyMoment(t *testing.T) {
	h := newDualHost(t)
	c := newContainer(t, "c")
	begun := time.Now()
	h.add(t, c, "eth0", h.conf(nil))
	whole := time.Since(begun)
	h.must(t, c, "eth0", "DEL", h.conf(nil))
	var moments []time.Duration
	for range rounds() {
		moment := rand.N(whole * 6 / 5)
		moments = append(moments, moment)
		cmd := h.command(c, "eth0", "ADD", h.conf(nil))
		if err := h.ns.Do(cmd.Start); err != nil {
			t.Fatal(err)
		}
		<-time.After(moment)
		cmd.Process.Kill()
		cmd.Wait()
		h.must(t, c, "eth0", "DEL", h.conf(nil))
		if found := h.left(t); len(found) > 0 {
			t.Fatalf("killed after %v of about %v, and after DEL left over: %q", moment, whole, found)
		}
	}
	wantOnlyLoopback(t, c)
	t.Logf("killed between %v and %v", slices.Min(moments), slices.Max(moments))
}
