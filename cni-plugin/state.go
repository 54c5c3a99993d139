//go:build linux

package cniplugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/types"

	"tulle/internal/atomicfile"
	"tulle/internal/regularfile"
)

// attachment names one interface of one container on one network.
type attachment struct{ network, container, ifname string }

// record is what is kept of an attachment from before its making until after its removal.
type record struct {
	Netns    string          `json:"netns"`   // path of the container's network namespace
	NetnsID  string          `json:"netnsID"` // tells it from a later namespace at the same path
	Args     string          `json:"args,omitempty"`
	Delegate json.RawMessage `json:"delegate"`         // the configuration that the delegate got
	Bridge   string          `json:"bridge,omitempty"` // the bridge that it has to make, as there was none
}

// states is the directory with a file per attachment.
type states struct{ dir string }

// longestName is how long the name of a state file may be, in bytes. File systems take 255, and package atomicfile adds to it while
// it writes.
const longestName = 255 - len(".") - len(".new") - len("4294967295")

// maxState bounds a state file, in bytes: it holds one configuration.
const maxState = 1 << 20

// separator is in no name, container id or interface name.
const separator = ":"

func (s states) path(a attachment) string {
	return filepath.Join(s.dir, a.network+separator+a.container+separator+a.ifname)
}

// check tells whether a state file of an attachment can be.
func (s states) check(a attachment) error {
	name := filepath.Base(s.path(a))
	if len(name) <= longestName {
		return nil
	}
	return types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf(
		"network %s, container %s, interface %s: the names have %d bytes together, may have %d: choose a shorter network name or container id",
		a.network, a.container, a.ifname, len(name)-2*len(separator), longestName-2*len(separator)), "")
}

// flannelPath is where the flannel plugin keeps what it knows of a container.
func (s states) flannelPath(container string) string { return filepath.Join(s.dir, container) }

// make makes the directory.
func (s states) make() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	return nil
}

// write keeps r, through power cuts too.
func (s states) write(a attachment, r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	return atomicfile.Write(s.path(a), text, 0o600)
}

// read returns what is known of an attachment, if need be from the flannel plugin. If there is nothing, the error wraps fs.ErrNotExist.
func (s states) read(a attachment) (record, error) {
	path := s.path(a)
	text, err := regularfile.Read(path, maxState)
	if err == nil {
		r, err := parseRecord(text)
		if err != nil {
			return r, fmt.Errorf("state %s is corrupt: %w", path, err)
		}
		return r, nil
	}
	if !absent(err) {
		return record{}, err
	}
	path = s.flannelPath(a.container)
	if text, err = regularfile.Read(path, maxState); absent(err) {
		return record{}, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	} else if err != nil {
		return record{}, err
	}
	name, err := delegateField(text, "name")
	if err != nil {
		return record{}, fmt.Errorf("state %s is corrupt: %w", path, err)
	}
	if name != a.network {
		return record{}, fmt.Errorf("state %s is of network %s: %w", path, name, fs.ErrNotExist)
	}
	return record{Delegate: text}, nil
}

func parseRecord(text []byte) (record, error) {
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return record{}, err
	}
	if _, err := delegateField(r.Delegate, "type"); err != nil {
		return record{}, err
	}
	return r, nil
}

// delegateField returns a string of a delegate's configuration.
func delegateField(conf json.RawMessage, name string) (string, error) {
	var o object
	if err := json.Unmarshal(conf, &o); err != nil {
		return "", fmt.Errorf("delegate's configuration: %w", err)
	}
	value, err := text(o, name, "")
	if err == nil && value == "" {
		err = fmt.Errorf("delegate's configuration has no %s", name)
	}
	return value, err
}

// remove forgets an attachment, and what a crash left of writing it: who does not hold the lock cannot tell that from what is being written.
func (s states) remove(a attachment, locked bool) error {
	err := os.Remove(s.path(a))
	if absent(err) {
		err = nil
		if _, readErr := s.read(a); !errors.Is(readErr, fs.ErrNotExist) {
			err = removeFile(s.flannelPath(a.container))
		}
	}
	if locked {
		err = errors.Join(err, atomicfile.Discard(s.path(a)))
	}
	return err
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !absent(err) {
		return err
	}
	return nil
}
