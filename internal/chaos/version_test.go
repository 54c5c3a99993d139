//go:build linux

package chaos

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
)

// version says which build of tulled is started from now on.
func (r *row) version(args []string) error {
	if len(args) != 1 || args[0] != "this" && args[0] != "next" {
		return fmt.Errorf("want this or next, got %q", args)
	}
	path := filepath.Join(labtest.Programs(), "tulled")
	if args[0] == "next" {
		path = filepath.Join(r.w.lab.Config.Dir, "tulled-next")
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if err := labtest.BuildDaemon(".", path, "-ldflags=-X main.version=next"); err != nil {
				return err
			}
		}
	}
	r.w.lab.Config.Tulled = path
	return nil
}

// leave rewrites what tulled keeps in the state directory of a host. A newer
// version has more to say, and a view of another format; an older one knew no
// checksum and had less to say.
func (r *row) leave(args []string) error {
	if len(args) != 2 || args[1] != "newer" && args[1] != "older" {
		return fmt.Errorf("want a host and newer or older, got %q", args)
	}
	newer := args[1] == "newer"
	return r.each(args[0], func(host *lab.Host) error {
		if host.DaemonPID() != 0 {
			return fmt.Errorf("tulled runs on %s", host)
		}
		record := filepath.Join(host.Dir, "state", "host.json")
		text, err := os.ReadFile(record)
		if err != nil {
			return err
		}
		view := map[string]any{"leases": []any{}}
		if newer {
			view = map[string]any{"format": 99, "leases": "elsewhere"}
		}
		return errors.Join(
			rewrite(record, text, newer),
			writeView(filepath.Join(host.Dir, "state", "view.json.gz"), view, newer),
			os.WriteFile(filepath.Join(host.Dir, "run", "wanted.json"), []byte(`{"State":"elsewhere"}`), 0o600),
		)
	})
}

func rewrite(path string, text []byte, newer bool) error {
	var record map[string]any
	if err := json.Unmarshal(text, &record); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	delete(record, "sha256")
	if newer {
		record["tunnels"] = map[string]int{"flannel.1": 99}
	} else {
		delete(record, "attrs")
	}
	data, err := encode(record, newer)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

func writeView(path string, view map[string]any, newer bool) error {
	data, err := encode(view, newer)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(data); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, packed.Bytes(), 0o600)
}

// encode returns a JSON object; sealed, its first member is the SHA-256 of all
// that comes after it.
func encode(object map[string]any, sealed bool) ([]byte, error) {
	data, err := json.Marshal(object)
	if err != nil || !sealed {
		return data, err
	}
	rest := append([]byte(`",`), data[1:]...)
	return fmt.Appendf(nil, `{"sha256":"%x%s`, sha256.Sum256(rest), rest), nil
}
