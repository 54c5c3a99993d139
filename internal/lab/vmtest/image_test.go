//go:build linux && vm

package vmtest

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// archive is an initramfs in the making (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst). Its first error stays.
type archive struct {
	w     *bufio.Writer
	files int
	err   error
}

// The types of files (inode(7)).
const (
	typeFile   = 0o100000
	typeDir    = 0o040000
	typeDevice = 0o020000
)

func (a *archive) dir(name string) { a.entry(name, typeDir|0o755, 0, 0, nil) }

// console is what init reads and writes before there are devices (console(4)).
func (a *archive) console() { a.entry("/dev/console", typeDevice|0o600, 5, 1, nil) }

func (a *archive) copy(name, from string) {
	data, err := os.ReadFile(from)
	a.err = errors.Join(a.err, err)
	a.entry(name, typeFile|0o755, 0, 0, data)
}

func (a *archive) entry(name string, mode, major, minor int, data []byte) {
	name = strings.TrimPrefix(name, "/") + "\x00"
	a.files++
	fmt.Fprintf(a.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.files, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name), 0)
	const header = 110
	a.padded(header, []byte(name))
	a.padded(0, data)
}

// padded writes what follows some bytes, up to a multiple of four.
func (a *archive) padded(after int, data []byte) {
	_, err := a.w.Write(append(slices.Clip(data), make([]byte, -(after+len(data))&3)...))
	a.err = errors.Join(a.err, err)
}

func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, 0, 0, nil)
	return errors.Join(a.err, a.w.Flush())
}

// modulesOf lists the files of the modules that a lab needs below a directory, each after those that it depends on, by where they are in the machine.
func modulesOf(t *testing.T, dir string) map[string][]string {
	t.Helper()
	files := map[string]string{} // by name
	builtin := map[string]bool{}
	name := func(path string) string {
		base, _, _ := strings.Cut(filepath.Base(path), ".ko")
		return strings.ReplaceAll(base, "-", "_")
	}
	err := filepath.WalkDir(filepath.Join(dir, "lib", "modules"), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case filepath.Ext(path) == ".ko":
			files[name(path)] = path
		case entry.Name() == "modules.builtin":
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(text)) {
				builtin[name(line)] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var early []string
	var add func(list []string, module string) []string
	add = func(list []string, module string) []string {
		path, ok := files[module]
		switch {
		case !ok && builtin[module]:
			return list
		case !ok:
			t.Fatalf("the kernel below %s has no module %s", dir, module)
		case slices.Contains(early, path) || slices.Contains(list, path):
			return list
		}
		for _, other := range dependencies(t, path) {
			list = add(list, strings.ReplaceAll(other, "-", "_"))
		}
		return append(list, path)
	}
	for _, module := range []string{
		"bridge", "veth", "nf_tables", "nft_ct", "nft_chain_nat", "nft_nat", "nft_masq", "nft_fib_ipv4", "nft_fib_ipv6", "nft_objref",
		"vxlan", "br_netfilter",
	} {
		early = add(early, module)
	}
	return map[string][]string{modulesDir: early, ipipDir: add(nil, "ipip"), filtersDir: add(add(nil, "sch_ingress"), "cls_bpf")}
}

// dependencies reads which modules a module names as those that it depends on.
func dependencies(t *testing.T, path string) []string {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Section(".modinfo").Data()
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range bytes.Split(info, []byte{0}) {
		if names, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(names) > 0 {
			return strings.Split(string(names), ",")
		}
	}
	return nil
}
