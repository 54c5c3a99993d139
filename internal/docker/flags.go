package docker

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// PIDFile is where dockerd writes its process id, unless told otherwise.
const PIDFile = "/run/docker.pid"

// CheckFlags returns an error if the running dockerd has one of the settings on its command line: it would not start with
// the same in daemon.json.
func CheckFlags(pidFile string, settings []Setting) error {
	pid, err := os.ReadFile(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find dockerd: %w", err)
	}
	line, err := os.ReadFile(filepath.Join("/proc", string(bytes.TrimSpace(pid)), "cmdline"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read command line of dockerd: %w", err)
	}
	if flags := clashing(strings.Split(string(line), "\x00"), settings); len(flags) > 0 {
		return fmt.Errorf("dockerd runs with %s, and would not start with the same in daemon.json: "+
			"take it off its command line (see: systemctl cat docker), restart it, and try again", strings.Join(flags, " and "))
	}
	return nil
}

// clashing lists the arguments that set what settings set, or that give docker0 up for another bridge.
func clashing(args []string, settings []Setting) []string {
	return slices.DeleteFunc(slices.Clone(args), func(arg string) bool {
		name, _, _ := strings.Cut(arg, "=")
		if name == "-b" || name == "--bridge" {
			return false
		}
		return !slices.ContainsFunc(settings, func(s Setting) bool { return name == "--"+s.Key })
	})
}
