package settings

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"testing"
)

func TestFromEnvironment(t *testing.T) {
	for name, tt := range map[string]struct {
		env             map[string]string
		variable, value string
	}{
		"nothing":        {},
		"Tulle's":        {map[string]string{"TULLED_ETCD_PREFIX": "/a", "FLANNELD_ETCD_PREFIX": "/b"}, "TULLED_ETCD_PREFIX", "/a"},
		"flannel's":      {map[string]string{"FLANNELD_ETCD_PREFIX": "/b"}, "FLANNELD_ETCD_PREFIX", "/b"},
		"empty is none":  {map[string]string{"TULLED_ETCD_PREFIX": "", "FLANNELD_ETCD_PREFIX": "/b"}, "FLANNELD_ETCD_PREFIX", "/b"},
		"of other flags": {map[string]string{"TULLED_ETCD": "/a", "ETCD_PREFIX": "/b"}, "", ""},
	} {
		lookup := func(name string) (string, bool) { v, ok := tt.env[name]; return v, ok }
		variable, value, ok := FromEnvironment(EtcdPrefix().Flag(), lookup)
		if variable != tt.variable || value != tt.value || ok != (tt.variable != "") {
			t.Errorf("%s: %q, %q, %t", name, variable, value, ok)
		}
	}
}

func TestList(t *testing.T) {
	for text, want := range map[string][]string{
		"":                         nil,
		" , ":                      nil,
		"http://a:1":               {"http://a:1"},
		"http://a:1, http://b:2,,": {"http://a:1", "http://b:2"},
	} {
		if got := List(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestNoFlagIsDefinedTwice(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range All() {
		if seen[s.Flag()] || s.help == "" {
			t.Errorf("%s is there twice, or lacks a text", s.Flag())
		}
		seen[s.Flag()] = true
	}
}

// A setting that is not listed would be read from no variable.
func TestAllAreListed(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "settings.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || fn.Type.Params.NumFields() > 0 || fn.Type.Results.NumFields() != 1 {
			continue
		}
		if result, ok := fn.Type.Results.List[0].Type.(*ast.Ident); ok && result.Name == "Setting" {
			n++
		}
	}
	if n == 0 || n != len(All()) {
		t.Errorf("%d settings are listed, and there are %d", len(All()), n)
	}
}
