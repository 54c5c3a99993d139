package agent

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestSeal(t *testing.T) {
	for _, object := range []string{`{}`, `{"a":1}`} {
		sealed := seal([]byte(object))
		var got map[string]any
		if err := errors.Join(unseal(sealed), json.Unmarshal(sealed, &got)); err != nil {
			t.Errorf("%s: %v", sealed, err)
		}
		for i := range sealed {
			broken := bytes.Clone(sealed)
			broken[i] ^= 1
			if unseal(broken) == nil {
				t.Errorf("%s: a changed byte goes unnoticed", broken)
			}
			if unseal(sealed[:i]) == nil {
				t.Errorf("%s: the lack of the rest goes unnoticed", sealed[:i])
			}
		}
	}
	if err := unseal([]byte(`{"a":1}`)); !errors.Is(err, errUnsealed) {
		t.Errorf("%v, want that there is no checksum", err)
	}
}

func TestRecordIsSealed(t *testing.T) {
	r := recorded{dir: t.TempDir()}
	if err := r.write(Record{Subnets: "10.5.1.0-24"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.dir, recordFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, string(bytes.Replace(data, []byte("10.5.1"), []byte("10.5.2"), 1)))
	if _, err := ReadRecord(r.dir); !errors.Is(err, errGarbled) || !errors.Is(err, errBroken) {
		t.Errorf("%v, want a broken checksum", err)
	}
	writeFile(t, path, `{"subnets":"10.5.3.0-24"}`) // of an earlier version
	if got, err := ReadRecord(r.dir); err != nil || got.Subnets != "10.5.3.0-24" {
		t.Errorf("%+v, %v", got, err)
	}
}

func unzip(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func zip(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
