package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the module's path, under which its packages import each other.
const module = "tulle"

// tree is every Go file of the repository, whatever OS it is built for.
type tree struct {
	root  string
	fset  *token.FileSet
	files []*file
}

// file is one Go source file.
type file struct {
	*ast.File
	path string // from the root of the repository, with slashes
	dir  string // the package's import path below the module
	test bool   // built for tests only: a _test.go file, or one of a package of test helpers
}

func loadTree(t *testing.T) *tree {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	tr := &tree{root: root, fset: token.NewFileSet()}
	for _, name := range tr.names(t) {
		if path.Ext(name) != ".go" {
			continue
		}
		syntax, err := parser.ParseFile(tr.fset, filepath.Join(root, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		tr.files = append(tr.files, newFile(name, syntax))
	}
	return tr
}

func newFile(name string, syntax *ast.File) *file {
	dir := path.Dir(name)
	return &file{File: syntax, path: name, dir: dir, test: strings.HasSuffix(name, "_test.go") || strings.HasSuffix(dir, "test")}
}

// names lists the repository's files, without what git and the build keep for themselves.
func (tr *tree) names(t *testing.T) []string {
	t.Helper()
	var names []string
	err := fs.WalkDir(os.DirFS(tr.root), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{".git", "bin", "testdata"}, entry.Name()) {
			return fs.SkipDir
		}
		if entry.Type().IsRegular() {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// packages groups the files by directory and package name, so that an external test package is one of its own.
func (tr *tree) packages() [][]*file {
	byName := map[[2]string][]*file{}
	for _, f := range tr.files {
		id := [2]string{f.dir, f.Name.Name}
		byName[id] = append(byName[id], f)
	}
	return slices.Collect(maps.Values(byName))
}

// at is the position of n as file:line, from the root of the repository.
func (tr *tree) at(n ast.Node) string {
	pos := tr.fset.Position(n.Pos())
	name, err := filepath.Rel(tr.root, pos.Filename)
	if err != nil {
		name = pos.Filename
	}
	return name + ":" + strconv.Itoa(pos.Line)
}

// imports lists the import paths of f.
func (f *file) imports() []string {
	var paths []string
	for _, spec := range f.Imports {
		paths = append(paths, importPath(spec))
	}
	return paths
}

func importPath(spec *ast.ImportSpec) string { return strings.Trim(spec.Path.Value, `"`) }

// selections finds uses of the named members of the package at importPath.
func (f *file) selections(pkg string, members ...string) []ast.Node {
	local := ""
	for _, spec := range f.Imports {
		if importPath(spec) != pkg {
			continue
		}
		local = path.Base(pkg)
		if spec.Name != nil {
			local = spec.Name.Name
		}
	}
	if local == "" {
		return nil
	}
	var found []ast.Node
	ast.Inspect(f.File, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok || !slices.Contains(members, sel.Sel.Name) {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == local {
			found = append(found, sel)
		}
		return true
	})
	return found
}
