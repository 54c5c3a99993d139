// Package docker holds all that Tulle knows about Docker: the settings of docker0, networks of its own, and which of them hold the lease.
package docker

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tulle/internal/atomicfile"
	"tulle/internal/regularfile"
	"tulle/ip"
)

// File is Docker's configuration, usually /etc/docker/daemon.json. Beside it Tulle keeps what it needs for
// putting everything back: the former file, and a record of what it set.
type File struct {
	path string
	// target is where path leads if it is a link to what is not there.
	target string
	// accept is asked about a new content before it becomes that of the file.
	accept func(path string) error
}

// maxFile bounds Docker's files and those beside them, in bytes.
const maxFile = 16 << 20

// OpenFile follows symbolic links, so that a file kept elsewhere is edited where it is. It need not exist.
func OpenFile(path string) (File, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		target, _ := os.Readlink(path) // empty if path is not there either
		return File{path: path, target: target}, nil
	}
	if at := new(fs.PathError); err != nil && !errors.As(err, &at) {
		// Too many links, of which the error names none.
		return File{}, fmt.Errorf("find docker configuration: %s is a link that leads back to itself, or through too many others (see: namei -l %s): make it lead to a file, or remove it: %w", path, ip.ShellWord(path), err)
	}
	if err != nil {
		return File{}, fmt.Errorf("find docker configuration: %w", err)
	}
	return File{path: real}, nil
}

// Accepting has Configure ask before it changes the file: accept gets the path of one with the new content, and its error
// leaves everything as it is.
func (f File) Accepting(accept func(path string) error) File {
	f.accept = accept
	return f
}

// Readable returns an error if a release of Docker cannot read the file.
func (f File) Readable(v Version) error {
	d, _, err := f.read()
	if err == nil && len(d.mark) > 0 && !v.ReadsMark() {
		err = fmt.Errorf("read %s: it begins with a byte order mark, which Docker %s cannot read: take it out, as with sed -i '1s/^\\xef\\xbb\\xbf//' %s", f.path, v, ip.ShellWord(f.path))
	}
	return err
}

// begin comes before every change. What a run left that was killed goes, and so does what it had written of a file that may be
// secret.
func (f File) begin() error {
	if err := f.edited(); err != nil {
		return err
	}
	return errors.Join(discardDrafts(f.path), discardDrafts(f.Backup()))
}

// edited returns an error if the file cannot be edited where it is. Docker reads a link that leads nowhere as no file. What is
// missing may be a file system that is to be mounted there, so that it is not for Tulle to make.
func (f File) edited() error {
	if f.target == "" {
		return nil
	}
	return fmt.Errorf("edit %s: it is a link to %s, which does not exist: make that, with {} in it, or remove the link", f.path, f.target)
}

// Path is where the file is.
func (f File) Path() string { return f.path }

// Backup is where the former file is kept. There is none if there was no file.
func (f File) Backup() string { return f.path + ".before-tulle" }

func (f File) recordPath() string { return f.path + ".tulle" }

const recordMode = 0o644

// AcceptsMark reports whether the file has Docker let in what tulled marks.
func (f File) AcceptsMark() (bool, error) {
	d, _, err := f.read()
	if err != nil {
		return false, err
	}
	value, err := d.get(acceptMarkKey)
	return same(value, json.RawMessage(strconv.Quote(AcceptMark()))), err
}

// record is what Configure has done.
type record struct {
	Existed  bool                       `json:"existed"` // there was a file before
	Written  string                     `json:"written"` // SHA-256 of the file as Configure left it
	Settings map[string]json.RawMessage `json:"settings"`
	Given    []netip.Prefix             `json:"given,omitempty"`   // subnets that docker0 was to hold
	Former   netip.Prefix               `json:"former,omitzero"`   // the address that docker0 had before
	Leaving  bool                       `json:"leaving,omitempty"` // Unconfigure waits for Docker's restart
}

// get returns what was set for a key, nil if the key was taken out; ok tells whether the key was touched at all.
func (r *record) get(key string) (value json.RawMessage, ok bool) {
	if r == nil {
		return nil, false
	}
	value, ok = r.Settings[key]
	if string(value) == "null" {
		value = nil
	}
	return value, ok
}

// read returns the text of the file; existed is false, and the text an empty object, if there is none.
func (f File) read() (d document, existed bool, err error) {
	text, err := regularfile.ReadTarget(f.path, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		text = []byte(emptyDocument)
	case err != nil:
		return d, false, fmt.Errorf("read docker configuration: %w", err)
	default:
		existed = true
	}
	if d, err = parseDocument(text); err != nil {
		return d, false, fmt.Errorf("read %s: %w", f.path, err)
	}
	return d, existed, nil
}

// readRecord returns nil if the file is not configured.
func (f File) readRecord() (*record, error) {
	text, err := regularfile.Read(f.recordPath(), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read record of docker configuration: %w", err)
	}
	r := new(record)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read %s: %w: put %s back by hand and delete both", f.recordPath(), err, f.Backup())
	}
	return r, nil
}

// former returns the file as it was before Configure.
func (f File) former(r *record) (document, error) {
	if r == nil || !r.Existed {
		return parseDocument([]byte(emptyDocument))
	}
	text, err := regularfile.Read(f.Backup(), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		// Only an operator knows now what was there.
		keys := strings.Join(slices.Sorted(maps.Keys(r.Settings)), ", ")
		return document{}, fmt.Errorf("read former docker configuration: %w: put it back there, or set %s in %s right by hand, delete %s, and run this again", err, keys, f.path, f.recordPath())
	}
	if err != nil {
		return document{}, fmt.Errorf("read former docker configuration: %w", err)
	}
	d, err := parseDocument(text)
	if err != nil {
		return d, fmt.Errorf("read %s: %w", f.Backup(), err)
	}
	return d, nil
}

// toKeep returns the former file, which no record speaks of yet; nil if there is none, or if a run that was interrupted has
// kept it. Anything else where it is to be kept is somebody's, and must not go with Unconfigure later.
func (f File) toKeep(d document, existed bool) ([]byte, error) {
	if _, err := os.Lstat(f.Backup()); errors.Is(err, fs.ErrNotExist) {
		if !existed {
			return nil, nil
		}
		return d.content(), nil
	} else if err != nil {
		return nil, fmt.Errorf("keep former docker configuration: %w", err)
	}
	if kept, err := regularfile.Read(f.Backup(), maxFile); err == nil && existed && bytes.Equal(kept, d.content()) {
		return nil, nil
	}
	return nil, fmt.Errorf("keep former docker configuration: something is at %s, and there is no %s that says that tulle has put it there: move it away, as with: mv %s %s",
		f.Backup(), f.recordPath(), ip.ShellWord(f.Backup()), ip.ShellWord(f.Backup()+".old"))
}

// write puts the record in place before the file: a crash in between leaves a record of what is not there, which
// undoes nothing; the other order would leave settings that nobody knows how to undo. backup is the content of the file to
// keep, nil if it is kept already or there is none. On an error nothing of it stays, or all of it does if only settling failed.
func (f File) write(d document, backup []byte, r *record, instead string) error {
	content := d.content()
	draft, err := newDraft(f.path, f.path, instead, content)
	if err != nil {
		return err
	}
	defer draft.discard()
	if f.accept != nil {
		if err := f.accept(draft.name); err != nil {
			return err
		}
	}
	r.Written = digest(content)
	undo, err := f.keep(backup, r, instead)
	if err == nil {
		err = draft.rename()
	}
	if err != nil {
		return errors.Join(err, undo())
	}
	// The settings are in place from here on, and so has to be what undoes them.
	return draft.commit()
}

// keep writes what Unconfigure needs. undo takes that back, also after an error, and nothing that was there before.
func (f File) keep(backup []byte, r *record, instead string) (undo func() error, err error) {
	var made []string
	undo = func() error { return remove(made...) }
	old, err := regularfile.Read(f.recordPath(), maxFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return undo, fmt.Errorf("read record of docker configuration: %w", err)
	}
	if backup != nil {
		placed, err := replace(f.Backup(), f.path, instead, backup)
		if placed {
			made = append(made, f.Backup())
		}
		if err != nil {
			return undo, err
		}
	}
	if old != nil {
		undo = func() error { return atomicfile.Write(f.recordPath(), old, recordMode) }
	} else {
		// The record goes before what it needs.
		made = append([]string{f.recordPath()}, made...)
	}
	return undo, f.writeRecord(r)
}

func (f File) writeRecord(r *record) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode record of docker configuration: %w", err)
	}
	return atomicfile.Write(f.recordPath(), append(text, '\n'), recordMode)
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func remove(paths ...string) error {
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove file: %w", err)
		}
	}
	return nil
}
