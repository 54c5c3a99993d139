package trouble

import (
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var write = flag.Bool("write", false, "write docs/troubles.md")

func TestOf(t *testing.T) {
	uncoded := errors.New("plain")
	lost := Wrap(LeaseLost, "10.5.1.0-24", uncoded)
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"none":             {nil, "[]"},
		"no code":          {uncoded, "[kernel.failed  plain]"},
		"code":             {lost, "[lease.lost 10.5.1.0-24 plain]"},
		"wrapped":          {fmt.Errorf("more: %w", lost), "[lease.lost 10.5.1.0-24 plain]"},
		"joined":           {errors.Join(lost, Wrap(FileUnwritable, "/x", uncoded)), "[lease.lost 10.5.1.0-24 plain file.unwritable /x plain]"},
		"several of one":   {Wrap(LeaseOutranked, "", errors.Join(errors.New("a"), errors.New("b"))), "[lease.outranked  a lease.outranked  b]"},
		"nothing to wrap":  {Wrap(LeaseLost, "", nil), "[]"},
		"the inner counts": {Wrap(LeaseUnavailable, "", lost), "[lease.lost 10.5.1.0-24 plain]"},
	} {
		var got []string
		for _, tr := range Of(tt.err) {
			got = append(got, fmt.Sprintf("%s %s %s", tr.Code, tr.Subject, tr.Text))
			if tr.Severity == "" || tr.Remedy == "" {
				t.Errorf("%s: %+v lacks a severity or a remedy", name, tr)
			}
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%s: %v, want %s", name, got, tt.want)
		}
	}
}

func TestTextIsBounded(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	for _, tr := range []Trouble{New(KeyUnreadable, long, long), Of(Wrap(LeaseLost, long, errors.New(long)))[0]} {
		if want := strings.Repeat("é", longest/2) + "..."; tr.Subject != want || tr.Text != want {
			t.Errorf("%d bytes of a subject and %d of a text, want %d of each", len(tr.Subject), len(tr.Text), len(want))
		}
	}
}

func TestListIsBounded(t *testing.T) {
	var l List
	for i := range 100 {
		l.Add(New(PeerRefused, fmt.Sprint(i), "x"))
	}
	l.Add(New(LeaseLost, "", "y"))
	if len(l.All) != most+1 || l.Count[PeerRefused] != 100 || l.Count[LeaseLost] != 1 {
		t.Errorf("%d troubles, counted %v", len(l.All), l.Count)
	}
	less := l.Without(PeerRefused)
	if len(less.All) != 1 || less.Count[PeerRefused] != 0 || len(l.All) != most+1 || l.Count[PeerRefused] != 100 {
		t.Errorf("without one code %v, and the list itself %v", less, l.Count)
	}
}

// page is docs/troubles.md.
func page() string {
	var b strings.Builder
	b.WriteString(`# Troubles

What ` + "`tulle status --json`" + ` lists under ` + "`troubles`" + ` and /metrics counts in ` + "`tulle_trouble{code=…}`" + `. A code never changes its meaning. With an *error* the
host is not ready; with a *warning* packets flow, and something should be done before they do not; *advice* is about what could be better.
This page is made by ` + "`make generate`" + `.

| code | severity | what it means | what to do |
|---|---|---|---|
`)
	for _, k := range Kinds() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Code, k.Severity, k.Meaning, k.Remedy)
	}
	b.WriteString(`
What ` + "`tulle doctor`" + ` tells besides, for tulled does not look there, or does not run. [doctor.md](doctor.md) has examples.

| code | severity | what it means | what to do |
|---|---|---|---|
`)
	for _, k := range DoctorKinds() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Code, k.Severity, k.Meaning, k.Remedy)
	}
	return b.String()
}

//go:generate go test -run TestPage . -write

// The page in docs says what the code says.
func TestPage(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "troubles.md")
	if *write {
		if err := os.WriteFile(path, []byte(page()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != page() {
		t.Errorf("%s is not what the codes say (%v): run make generate", path, err)
	}
	seen := map[Code]bool{}
	for _, k := range append(Kinds(), DoctorKinds()...) {
		if seen[k.Code] || k.Meaning == "" || k.Remedy == "" {
			t.Errorf("%s is there twice, or lacks words", k.Code)
		}
		seen[k.Code] = true
	}
}

// A code without a row would be an error that nothing lists.
func TestEveryCodeHasARow(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "kinds.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if of, ok := spec.Type.(*ast.Ident); ok && of.Name == "Code" {
				codes++
			}
		}
		return true
	})
	if rows := len(Kinds()) + len(DoctorKinds()); codes == 0 || codes != rows {
		t.Errorf("there are %d codes and %d rows", codes, rows)
	}
}
