package archtest

import (
	"errors"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"
)

const varsWhy = "state belongs to a value that main makes and passes on. A package variable is allowed if nothing can change it: " +
	"an error sentinel, an interface assertion, an embedded file, a compiled pattern, an unexported table that nobody writes to; " +
	"besides these, main.version, which the linker sets, and flags of tests"

func TestPackageVariables(t *testing.T) {
	tr := loadTree(t)
	for _, pkg := range tr.packages() {
		for _, name := range mutableVars(tr.fset, pkg) {
			t.Errorf("%s: package variable %s: %s", tr.at(name), name.Name, varsWhy)
		}
	}
}

func TestPackageVariablesBite(t *testing.T) {
	for source, want := range map[string]bool{
		`package p; var x int`:                                                                                  true,
		`package p; var x = 5`:                                                                                  true,
		`package p; var x = func() {}`:                                                                          true,
		`package p; var version = "dev"`:                                                                        true,
		`package p; import "sync"; var x sync.Mutex`:                                                            true,
		`package p; var X = map[string]int{"a": 1}`:                                                             true,
		`package p; var x = map[string]int{"a": 1}; func f() { x["b"] = 2 }`:                                    true,
		`package p; var x = []int{1}; func f() { x = append(x, 2) }`:                                            true,
		`package p; var x = map[string]int{"a": 1}; func f() { delete(x, "a") }`:                                true,
		`package p; var x = [2]int{1, 2}; func f() { x[0]++ }`:                                                  true,
		`package p; var x = [2]int{1, 2}; func f() *int { return &x[0] }`:                                       true,
		`package p; import "errors"; var ErrX = errors.New("x")`:                                                false,
		`package p; import "fmt"; var _ fmt.Stringer = T(0); type T int; func (T) String() string`:              false,
		`package p; import "regexp"; var x = regexp.MustCompile("x")`:                                           false,
		`package p; import "net/netip"; var x = netip.MustParsePrefix("fe80::/10")`:                             false,
		`package p; var x = map[string]int{"a": 1}; func f() int { return x["a"] }`:                             false,
		`package p; var x = map[string]int{"a": 1}; func f() { x := map[string]int{}; x["b"] = 2 }`:             false,
		"package p\nimport _ \"embed\"\n\n//go:embed page.html\nvar page string":                                false,
		`package main; var version = "dev"`:                                                                     false,
		`package p; import "errors"; var errX = errors.New("x"); func f() { errX = nil }`:                       true,
		`package p; import "text/template"; var x = template.Must(template.New("x").Parse("{{.}}"))`:            false,
		`package p; import "net/netip"; var x = netip.MustParsePrefix("::/0"); func f() { x = netip.Prefix{} }`: true,
	} {
		fset := token.NewFileSet()
		if got := len(mutableVars(fset, []*file{example(t, fset, source)})) > 0; got != want {
			t.Errorf("found fault = %t, want %t: %s", got, want, source)
		}
	}
}

// mutableVars returns the package variables of one package that something can change.
func mutableVars(fset *token.FileSet, pkg []*file) []*ast.Ident {
	written := writtenVars(fset, pkg)
	var bad []*ast.Ident
	for _, f := range pkg {
		for _, d := range f.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.VAR {
				continue
			}
			for _, spec := range decl.Specs {
				spec := spec.(*ast.ValueSpec)
				for i, name := range spec.Names {
					if name.Name != "_" && (written[name.Name] || !f.fixed(decl, spec, i)) {
						bad = append(bad, name)
					}
				}
			}
		}
	}
	return bad
}

// fixed reports whether a variable starts with something that stays as it is, as long as nobody assigns to the variable.
func (f *file) fixed(decl *ast.GenDecl, spec *ast.ValueSpec, i int) bool {
	name := spec.Names[i].Name
	if embeds(decl.Doc) || embeds(spec.Doc) || f.Name.Name == "main" && name == "version" {
		return true
	}
	if i >= len(spec.Values) {
		return false
	}
	switch value := spec.Values[i].(type) {
	case *ast.CompositeLit:
		return !ast.IsExported(name)
	case *ast.CallExpr:
		if strings.HasPrefix(name, "Err") || strings.HasPrefix(name, "err") {
			return slices.Contains(f.selections("errors", "New"), ast.Node(value.Fun)) ||
				slices.Contains(f.selections("fmt", "Errorf"), ast.Node(value.Fun))
		}
		allowed := slices.Concat(
			f.selections("regexp", "MustCompile"), f.selections("strings", "NewReplacer"),
			f.selections("text/template", "Must"), f.selections("html/template", "Must"),
			f.selections("net/netip", "MustParseAddr", "MustParsePrefix", "AddrFrom4", "AddrFrom16", "PrefixFrom"))
		if f.test {
			allowed = append(allowed, f.selections("flag", "Bool", "Int", "String", "Duration")...)
		}
		return !ast.IsExported(name) && slices.Contains(allowed, ast.Node(value.Fun))
	}
	return false
}

func embeds(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

// writtenVars names the package variables that the package itself assigns to, in whole or in part, or takes the address of.
func writtenVars(fset *token.FileSet, pkg []*file) map[string]bool {
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: noImports{}, Error: func(error) {}}
	var syntax []*ast.File
	for _, f := range pkg {
		syntax = append(syntax, f.File)
	}
	// Without imports the check is bound to find errors; which variable a name stands for it knows all the same.
	checked, _ := config.Check(pkg[0].dir, fset, syntax, info)

	written := map[string]bool{}
	note := func(e ast.Expr) {
		if id := root(e); id != nil {
			if v, ok := info.Uses[id].(*types.Var); ok && v.Parent() == checked.Scope() {
				written[v.Name()] = true
			}
		}
	}
	for _, f := range syntax {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, e := range n.Lhs {
					note(e)
				}
			case *ast.IncDecStmt:
				note(n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					note(n.X)
				}
			case *ast.CallExpr:
				if fn, ok := n.Fun.(*ast.Ident); ok && slices.Contains([]string{"delete", "clear", "copy"}, fn.Name) {
					note(n.Args[0])
				}
			}
			return true
		})
	}
	return written
}

// root is the variable that e is or is a part of.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, errors.New("not needed") }
