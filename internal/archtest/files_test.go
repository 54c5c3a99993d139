package archtest

import (
	"bytes"
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// maxLines is where a reader loses the thread; most files are half as long.
const maxLines = 500

func TestFileLength(t *testing.T) {
	tr := loadTree(t)
	for _, f := range tr.files {
		if lines := tr.fset.File(f.Package).LineCount(); lines > maxLines && !ast.IsGenerated(f.File) {
			t.Errorf("%s has %d lines, at most %d: split it by what a reader looks for", f.path, lines, maxLines)
		}
	}
}

func TestPackageNames(t *testing.T) {
	vague := []string{"util", "utils", "common", "types", "helpers", "misc", "base", "shared", "lib", "pkg"}
	for _, f := range loadTree(t).files {
		for _, name := range append(strings.Split(f.dir, "/"), f.Name.Name) {
			if slices.Contains(vague, name) {
				t.Errorf("%s: package %s: a package is named by the noun that an operator knows it by", f.path, name)
			}
		}
	}
}

func TestPackageDoc(t *testing.T) {
	for _, pkg := range loadTree(t).packages() {
		var docs []string
		product := false
		for _, f := range pkg {
			if strings.HasSuffix(f.path, "_test.go") {
				continue
			}
			product = true
			if f.Doc == nil {
				continue
			}
			docs = append(docs, f.path)
			if want := "Package " + f.Name.Name + " "; f.Name.Name != "main" && !strings.HasPrefix(f.Doc.Text(), want) {
				t.Errorf("%s: package comment does not begin with %q, as go doc expects", f.path, want)
			}
		}
		if product && len(docs) != 1 {
			t.Errorf("package %s has %d package comments %q, want one that says what it is for", pkg[0].dir, len(docs), docs)
		}
	}
}

func TestNoLeftoverMarks(t *testing.T) {
	// Written so that the pattern does not match itself.
	mark := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX|HA` + `CK)\b`)
	tr := loadTree(t)
	for _, name := range tr.names(t) {
		text, err := os.ReadFile(filepath.Join(tr.root, name))
		if err != nil {
			t.Fatal(err)
		}
		if path.Base(name) == "go.sum" || !utf8.Valid(text) {
			continue
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			if m := mark.Find(line); m != nil {
				t.Errorf("%s:%d: %s: what is to be done goes into the issue tracker, where somebody looks", name, i+1, m)
			}
		}
	}
}
