package docker

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"tulle/internal/atomicfile"
	"tulle/internal/regularfile"
)

// dropIn makes systemd start Docker once tulled is ready.
//
//go:embed tulle.conf
var dropIn string

// InstallDropIn makes path, below docker.service.d, hold the drop-in, and reports whether that was a change.
func InstallDropIn(path string) (bool, error) {
	if text, err := regularfile.ReadTarget(path, maxFile); err == nil && string(text) == dropIn {
		return false, nil
	}
	return true, atomicfile.Write(path, []byte(dropIn), 0o644)
}

// RemoveDropIn undoes InstallDropIn. A drop-in that somebody has changed stays.
func RemoveDropIn(path string) (bool, error) {
	text, err := regularfile.ReadTarget(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) || err == nil && string(text) != dropIn {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read drop-in: %w", err)
	}
	return true, remove(path)
}

// HasCommandLine reports whether the file at path replaces dockerd's command line. One that does not exist does not.
func HasCommandLine(path string) (bool, error) {
	text, err := regularfile.ReadTarget(path, maxFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read drop-in: %w", err)
	}
	return strings.Contains("\n"+string(text), "\nExecStart="), nil
}
