package docker

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// UsualConfigFile is what dockerd reads unless told otherwise.
const UsualConfigFile = "/etc/docker/daemon.json"

// Daemon is a dockerd: one that runs, or one as systemd will start it.
type Daemon struct {
	PID     int    // 0 unless it runs
	Unit    string // the file of systemd's that says how it starts; empty if it runs
	Program string
	Args    []string // without the program
}

// String names it for operators.
func (d *Daemon) String() string {
	if d.PID != 0 {
		return fmt.Sprintf("dockerd (process %d)", d.PID)
	}
	return "dockerd, as " + d.Unit + " starts it,"
}

// FindDaemon returns the dockerd that listens on a unix socket, or nil if no dockerd runs beside this process. It is an
// error if one does and listens elsewhere.
//
// Which process listens is told by which holds the socket. A pid file may be elsewhere, or have a number that another process has by
// now; and the peer of a connection (SO_PEERCRED) is the process that made the socket, which may be systemd.
func FindDaemon(socket string) (*Daemon, error) {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("find dockerd: %w", err)
	}
	file, _ := os.Stat(socket)
	var others []string
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		d, listens, err := readProcess(pid, file)
		switch {
		case err != nil || d == nil:
			// It has ended, or is another user's: neither is the Docker of this host.
		case listens:
			return d, nil
		default:
			others = append(others, p.Name())
		}
	}
	if len(others) > 0 {
		return nil, fmt.Errorf("dockerd runs as process %s, and does not listen on %s: give --docker-socket", strings.Join(others, " and "), socket)
	}
	return nil, nil
}

// readProcess returns nil if a process is no dockerd, or not one of this host's network.
func readProcess(pid int, socket fs.FileInfo) (d *Daemon, listens bool, err error) {
	// What is read below an open directory of /proc is of one process: not of the next that has the number.
	dir, err := os.OpenRoot(filepath.Join("/proc", strconv.Itoa(pid)))
	if err != nil {
		return nil, false, err
	}
	defer dir.Close()
	program, err := dir.Readlink("exe")
	if err != nil {
		return nil, false, err
	}
	// An upgrade has replaced it: the next start is of what is there now.
	program = strings.TrimSuffix(program, " (deleted)")
	if filepath.Base(program) != "dockerd" || !trusted(dir) {
		return nil, false, nil
	}
	network, err := dir.Readlink("ns/net")
	if err != nil {
		return nil, false, err
	}
	if own, err := os.Readlink("/proc/self/ns/net"); err != nil || own != network {
		return nil, false, err
	}
	line, err := dir.ReadFile("cmdline")
	if err != nil {
		return nil, false, err
	}
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	d = &Daemon{PID: pid, Program: program, Args: args[1:]}
	if socket == nil {
		return d, false, nil
	}
	listens, err = holds(dir, pid, socket)
	return d, listens, err
}

// trusted reports whether a process is root's or of the user of this one: its program may be run.
func trusted(dir *os.Root) bool {
	info, err := dir.Stat(".")
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
}

// holds reports whether a process has the listening end of a socket that is bound to a file.
func holds(dir *os.Root, pid int, socket fs.FileInfo) (bool, error) {
	table, err := dir.ReadFile("net/unix")
	if err != nil {
		return false, err
	}
	ends := listening(table, func(path string) bool {
		bound, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid), "root") + path)
		return err == nil && os.SameFile(bound, socket)
	})
	if len(ends) == 0 {
		return false, nil
	}
	open, err := fs.ReadDir(dir.FS(), "fd")
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(open, func(e fs.DirEntry) bool {
		target, err := dir.Readlink("fd/" + e.Name())
		return err == nil && slices.Contains(ends, target)
	}), nil
}

// listening returns the sockets of /proc/net/unix that listen on a path which is wanted, as links in /proc name them.
func listening(table []byte, wanted func(path string) bool) []string {
	const acceptsConnections = "00010000" // __SO_ACCEPTCON
	var ends []string
	for lines := bufio.NewScanner(bytes.NewReader(table)); lines.Scan(); {
		// Num RefCount Protocol Flags Type St Inode Path
		fields := strings.Fields(lines.Text())
		if len(fields) == 8 && fields[3] == acceptsConnections && strings.HasPrefix(fields[7], "/") && wanted(fields[7]) {
			ends = append(ends, "socket:["+fields[6]+"]")
		}
	}
	return ends
}

// ConfigFile is the file that it reads, as this process finds it. If a running dockerd sees other files than this process
// does, that is an error.
func (d *Daemon) ConfigFile() (string, error) {
	path := UsualConfigFile
	for _, f := range parseFlags(d.Args) {
		if f.name == "config-file" {
			path = f.value
		}
	}
	if d.PID == 0 {
		return path, nil
	}
	proc := filepath.Join("/proc", strconv.Itoa(d.PID))
	if !filepath.IsAbs(path) {
		dir, err := os.Readlink(filepath.Join(proc, "cwd"))
		if err != nil {
			return "", fmt.Errorf("find configuration of %s: %w", d, err)
		}
		path = filepath.Join(dir, path)
	}
	same, err := sameDir(filepath.Join(proc, "root"), filepath.Dir(path))
	if err != nil {
		return "", fmt.Errorf("find configuration of %s: %w", d, err)
	}
	if !same {
		return "", fmt.Errorf("%s has files of its own, and its %s is not this one: run tulle where it sees them, as with: nsenter --target %d --mount", d, path, d.PID)
	}
	return path, nil
}

// sameDir reports whether a directory is the same below root, which is that of another process. Where it is missing, that
// is about the next one above that is not.
func sameDir(root, dir string) (bool, error) {
	for {
		// Joined by hand: the link of /proc is followed by the kernel alone.
		theirs, errTheirs := os.Stat(root + dir)
		ours, errOurs := os.Stat(dir)
		switch missing := errors.Is(errTheirs, fs.ErrNotExist); {
		case missing && errors.Is(errOurs, fs.ErrNotExist) && dir != "/":
			dir = filepath.Dir(dir)
		case errOurs != nil && !errors.Is(errOurs, fs.ErrNotExist):
			return false, errOurs
		case errTheirs != nil && !missing:
			return false, errTheirs
		default:
			return errTheirs == nil && errOurs == nil && os.SameFile(theirs, ours), nil
		}
	}
}
