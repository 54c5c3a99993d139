// Package bugreport puts what tells how a host stands into one archive that can be sent to others.
package bugreport

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"time"
)

// Report is what goes into the archive.
type Report struct {
	Parts   []Part
	Missing []string // what could not be had, and why
}

// Part is a file in the archive.
type Part struct {
	Name string
	Text []byte
}

// Add adds a part, or says why there is none.
func (r *Report) Add(name string, text []byte, err error) {
	if err != nil {
		r.Missing = append(r.Missing, name+": "+err.Error())
		return
	}
	r.Parts = append(r.Parts, Part{name, text})
}

// Write writes the archive, tar(5) by gzip, with all files in one directory. What is missing is in a file of its own. Each text goes through each of hide.
func (r *Report) Write(w io.Writer, directory string, now time.Time, hide ...func([]byte) []byte) error {
	compressed := gzip.NewWriter(w)
	archive := tar.NewWriter(compressed)
	parts := r.Parts
	if len(r.Missing) > 0 {
		parts = append(parts[:len(parts):len(parts)], Part{"missing.txt", []byte(strings.Join(r.Missing, "\n") + "\n")})
	}
	for _, p := range parts {
		text := p.Text
		for _, f := range hide {
			text = f(text)
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: directory + "/" + p.Name, Size: int64(len(text)), Mode: 0o600, ModTime: now}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("write %s: %w", p.Name, err)
		}
		if _, err := archive.Write(text); err != nil {
			return fmt.Errorf("write %s: %w", p.Name, err)
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("end the archive: %w", err)
	}
	if err := compressed.Close(); err != nil {
		return fmt.Errorf("end the archive: %w", err)
	}
	return nil
}
