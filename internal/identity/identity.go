// Package identity tells which host this is: the node id that owns its lease, and what tells this machine from a copy of it.
package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"tulle/internal/atomicfile"
	"tulle/internal/regularfile"
	"tulle/subnet"
)

// NodeID returns the identity that owns this host's lease: the explicit one if given, else one derived from the machine
// id at machineIDPath (machine-id(5): it is not to be shown as it is, so it is hashed), else a random one kept in stateDir.
// made tells that the random one was made just now: a host that keeps no state has another one with each start.
func NodeID(explicit, machineIDPath, stateDir string) (id string, made bool, err error) {
	if explicit != "" {
		return explicit, false, subnet.CheckNodeID(explicit)
	}
	machineID, err := regularfile.ReadTarget(machineIDPath, maxID)
	if id := strings.TrimSpace(string(machineID)); err == nil && id != "" && id != "uninitialized" {
		sum := sha256.Sum256([]byte("tulle node " + id))
		return hex.EncodeToString(sum[:8]), false, nil
	}
	return stored(filepath.Join(stateDir, "node-id"), idSize)
}

const (
	idSize = 8       // random bytes of an id
	maxID  = 4 << 10 // of a file with one
)

// InstancePath is the file below the run directory that holds what Instance returns.
func InstancePath(runDir string) string { return filepath.Join(runDir, "instance") }

// Instance returns what tells this machine, since it booted, from a clone that has the same node id. It lies in runDir,
// which does not survive a reboot and is in no image. If that cannot be written now, unkept says why, and the next start has another.
func Instance(runDir string) (id string, unkept, err error) {
	id, _, err = stored(InstancePath(runDir), idSize)
	if id != "" && atomicfile.Unwritable(err) {
		return id, err, nil
	}
	return id, nil, err
}

// ProbeKeyPath is the file below the run directory that holds what ProbeKey returns.
func ProbeKeyPath(runDir string) string { return filepath.Join(runDir, "probe-key") }

// ProbeKey returns the key by which other hosts ask this one whether packets arrive. It is the same until the host reboots, so that a restart of tulled
// changes nothing that peers know. If runDir cannot be written now, unkept says why, and the next start has another.
func ProbeKey(runDir string) (key [16]byte, unkept, err error) {
	path := ProbeKeyPath(runDir)
	text, _, err := stored(path, len(key))
	if text != "" && atomicfile.Unwritable(err) {
		unkept, err = err, nil
	}
	if err != nil {
		return key, nil, err
	}
	decoded, err := hex.DecodeString(text)
	if err != nil || len(decoded) != len(key) {
		return key, nil, fmt.Errorf("%s holds no key: delete the file to get a new one", path)
	}
	return [16]byte(decoded), unkept, nil
}

// stored returns the id in the file at path, and makes one of so many random bytes if there is no file; with an error if that cannot be kept.
func stored(path string, size int) (id string, made bool, err error) {
	data, err := regularfile.Read(path, maxID)
	if err == nil {
		id := strings.TrimSpace(string(data))
		if subnet.CheckNodeID(id) != nil {
			return "", false, fmt.Errorf("%s holds no id: delete the file to get a new one", path)
		}
		return id, false, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", false, fmt.Errorf("read id: %w", err)
	}
	b := make([]byte, size)
	rand.Read(b)
	id = hex.EncodeToString(b)
	if err := atomicfile.Write(path, []byte(id+"\n"), 0o600); err != nil {
		return id, true, fmt.Errorf("keep id: %w", err)
	}
	return id, true, nil
}
