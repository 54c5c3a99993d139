package agent

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/hostfiles"
	"tulle/internal/hostfiles/hostfilestest"
	"tulle/ip"
)

// A disk that cannot be written makes the host say so; forwarding follows the other hosts all the same.
func TestUnwritableFiles(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(c *Config, under string)
		reason string
	}{
		"subnet file":     {func(c *Config, under string) { c.Networks[0].SubnetFile = filepath.Join(under, "subnet.env") }, "write subnet file"},
		"state directory": {func(c *Config, under string) { c.StateDir = filepath.Join(under, "state") }, "write record"},
		"run directory":   {func(c *Config, under string) { c.RunDir = filepath.Join(under, "run") }, "write wanted state"},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
				h, late := w.hosts[0], w.hosts[2]
				disk := filepath.Join(h.dir, "disk")
				h.change = func(c *Config) { tt.change(c, disk) }
				h.start()
				w.hosts[1].start()
				w.within(soon, "ready", func(o *node) bool { return o == late || o.agent.Status().Ready })

				// Below a file nothing can be made, by root neither.
				if err := os.RemoveAll(disk); err != nil {
					t.Fatal(err)
				}
				hostfilestest.Write(t, disk, "")
				h.move(201)
				late.start()
				knows := func(o *node) bool { return o != h || len(h.agent.Status().Of("").Peers) == 2 }
				w.within(soon, "follows", knows)
				w.within(soon, "says so", func(o *node) bool {
					return o != h || !h.agent.Status().Ready && strings.Contains(h.agent.Status().Reason, tt.reason)
				})
				if snap, err := h.kernel.Snapshot(t.Context(), ip.Scope{Links: []string{"flannel.1", "flannel-v6.1"}}); err != nil || len(snap.Owned.Routes) != 4 {
					t.Errorf("routes %v, error %v, want two for each peer", snap.Owned.Routes, err)
				}
				if err := os.Remove(disk); err != nil {
					t.Fatal(err)
				}
				w.within(time.Minute, "heals", func(o *node) bool { return o.agent.Status().Ready })
			})
		})
	}
}

func TestGarbledRecordIsSetAside(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		was, subnets := h.owned().String(), h.agent.Status().Of("").Lease.Subnets
		h.stop()
		hostfilestest.Write(t, filepath.Join(h.dir, "state", "host.json"), `{"subnets": "10.5`)
		h.start()
		w.converged(soon)
		if got := h.agent.Status().Of("").Lease.Subnets; !slices.Equal(got, subnets) {
			t.Errorf("subnets %v, were %v", got, subnets)
		}
		if diff := cmp.Diff(was, h.owned().String()); diff != "" {
			t.Error(diff)
		}
		if aside, err := os.ReadFile(filepath.Join(h.dir, "state", "host.json.garbled")); err != nil || string(aside) != `{"subnets": "10.5` {
			t.Errorf("set aside: %q, %v", aside, err)
		}
	})
}

func TestRestWritesNothing(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		w.converged(soon)
		<-time.After(resyncEvery + soon) // what incremental passes wanted is on disk
		files := map[string]os.FileInfo{}
		for _, name := range []string{"subnet.env", "state/host.json", "run/wanted.json"} {
			info, err := os.Stat(filepath.Join(h.dir, name))
			if err != nil {
				t.Fatal(err)
			}
			files[name] = info
		}
		h.kernel.Refuse(func(op ip.Op) error {
			t.Errorf("applied: %s", op)
			return nil
		})
		synctest.Wait()
		before := h.passes.Load()
		<-time.After(time.Hour)
		synctest.Wait()
		if n := h.passes.Load() - before; n < 100 || n > 125 {
			t.Errorf("%d passes in an hour, want one every %v", n, resyncEvery)
		}
		for name, info := range files {
			// A file that is replaced is another one.
			if now, err := os.Stat(filepath.Join(h.dir, name)); err != nil || !os.SameFile(now, info) || now.ModTime() != info.ModTime() {
				t.Errorf("%s was written (%v)", name, err)
			}
		}
	})
}

// A restart that finds the store as it was leaves the cached view as it is: with many peers it is the costliest file.
func TestRestartKeepsTheCachedView(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		w.converged(soon)
		h.stop()
		path := filepath.Join(h.dir, "state", "view.json.gz")
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		h.start()
		w.converged(soon)
		<-time.After(time.Hour)
		if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("it was written anew (%v)", err)
		}
		w.hosts[1].move(99)
		<-time.After(2 * time.Minute)
		if after, err := os.Stat(path); err != nil || os.SameFile(before, after) {
			t.Errorf("a change was not kept (%v)", err)
		}
	})
}

// What a host keeps on disk is root's alone, but for the subnet file, which is for all to read.
func TestFilesAreRootsAlone(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		<-time.After(2 * hostfiles.ViewEvery)
		h := w.hosts[0]
		h.stop()
		found := map[string]bool{}
		err := filepath.WalkDir(h.dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			want := fs.FileMode(0o600)
			if e.Name() == "subnet.env" {
				want = 0o644
			}
			if info.Mode().Perm() != want {
				t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
			}
			found[e.Name()] = true
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"subnet.env", "host.json", "view.json.gz", "wanted.json"} {
			if !found[name] {
				t.Errorf("no file %s among %v", name, found)
			}
		}
	})
}
