package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// sourceRule is a rule about what may stand in a file.
type sourceRule struct {
	name   string
	why    string
	exempt func(*file) bool
	find   func(*file) []ast.Node // what breaks the rule
	bad    string                 // breaks it; the proof that find finds
	good   string                 // comes close, and does not
}

func sourceRules() []sourceRule {
	return []sourceRule{{
		name: "no init functions",
		why:  "what a program does must be readable from its main, not from its import list",
		find: func(f *file) []ast.Node {
			var found []ast.Node
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					found = append(found, fn)
				}
			}
			return found
		},
		bad:  `package p; func init() {}`,
		good: `package p; type t int; func (t) init() {}`,
	}, {
		name:   "no blank imports",
		why:    "an import for its side effects is an init function in disguise",
		exempt: func(f *file) bool { return f.test || f.Name.Name == "main" },
		find: func(f *file) []ast.Node {
			var found []ast.Node
			for _, spec := range f.Imports {
				if spec.Name != nil && spec.Name.Name == "_" && importPath(spec) != "embed" {
					found = append(found, spec)
				}
			}
			return found
		},
		bad:  `package p; import _ "net/http/pprof"`,
		good: `package p; import _ "embed"`,
	}, {
		name: "no time.Sleep",
		why: "it cannot be cancelled and makes tests slow or flaky: wait on a timer and the context; " +
			"in tests retry until a deadline, or wait on time.After in a synctest bubble",
		find: func(f *file) []ast.Node { return f.selections("time", "Sleep") },
		bad:  `package p; import "time"; func f() { time.Sleep(1) }`,
		good: `package p; import "time"; func f() { <-time.After(1) }`,
	}, {
		name: "no wall clock",
		why: "somebody may set it, at any time and by hours: times are told apart by readings of the monotonic clock, leases by uptime; " +
			"a time of day is text for people",
		exempt: func(f *file) bool {
			// Certificates have a time of day, which metrics tell; a deadline in the past ends a read, and other systems have nothing better.
			return f.test || within(f.dir, "internal/lab", "ip/kernel") || f.path == "subnet/etcd/clock_other.go" || f.path == "internal/api/metrics.go"
		},
		find: wallClock,
		bad:  `package p; import "time"; func f(t time.Time) bool { return time.Now().UTC().After(t) }`,
		good: `package p; import "time"; func f(t time.Time) string { _ = time.Since(t); return t.UTC().Format(time.RFC3339) }`,
	}, {
		name:   "netip instead of net.IPNet",
		why:    "one comparable type serves both families; net.IPNet is for the packages that speak netlink",
		exempt: func(f *file) bool { return within(f.dir, "ip/kernel", "internal/bench", "internal/lab") },
		find: func(f *file) []ast.Node {
			return f.selections("net", "IPNet", "IPMask", "ParseCIDR", "ParseIP", "CIDRMask")
		},
		bad:  `package p; import "net"; var _ net.IPNet`,
		good: `package p; import "net"; var _ net.HardwareAddr`,
	}, {
		name: "no global logger",
		why:  "a logger is passed in, so that a reader sees who logs and a test can listen",
		find: func(f *file) []ast.Node {
			return f.selections("log/slog", "Default", "SetDefault", "Debug", "Info", "Warn", "Error", "Log",
				"DebugContext", "InfoContext", "WarnContext", "ErrorContext")
		},
		bad:  `package p; import "log/slog"; func f() { slog.Info("x") }`,
		good: `package p; import "log/slog"; func f(log *slog.Logger) { log.Info("x") }`,
	}, {
		name: "no stored context",
		why:  "a context belongs to one call; kept in a struct it outlives what it was meant to bound",
		// The context of a gRPC stream travels in the stream; that of a store is its life, from Open to Close; to chromedp, a tab of the browser is one.
		exempt: func(f *file) bool {
			return within(f.dir, "internal/etcdmember", "internal/etcdtransport", "subnet/etcd", "subnet/subnettest", "internal/web/webtest")
		},
		find: func(f *file) []ast.Node {
			var found []ast.Node
			ast.Inspect(f.File, func(n ast.Node) bool {
				if s, ok := n.(*ast.StructType); ok {
					for _, field := range s.Fields.List {
						if slices.Contains(f.selections("context", "Context"), ast.Node(field.Type)) {
							found = append(found, field)
						}
					}
				}
				return true
			})
			return found
		},
		bad:  `package p; import "context"; type t struct{ ctx context.Context }`,
		good: `package p; import "context"; type t struct{ stop context.CancelFunc; run func(context.Context) }`,
	}, {
		name: "skips name what is missing, and fail under CI",
		why:  `a skip anywhere else is a test that nobody runs: write if os.Getenv("CI") == "" { t.Skipf("needs ...") }, best in a helper`,
		find: func(f *file) []ast.Node {
			var found []ast.Node
			ast.Inspect(f.File, func(n ast.Node) bool {
				if fn, ok := n.(*ast.FuncDecl); ok && !contains(fn, func(text string) bool { return text == `"CI"` }) {
					found = append(found, skips(fn, func(string) bool { return true })...)
				}
				return true
			})
			return append(found, skips(f.File, func(text string) bool { return !strings.HasPrefix(text[1:], "needs ") })...)
		},
		bad:  `package p; import "testing"; func Test(t *testing.T) { if flaky { t.Skip("needs luck") } }`,
		good: `package p; import ("os"; "testing"); func Test(t *testing.T) { if os.Getenv("CI") == "" { t.Skipf("needs root: %v", 1) } }`,
	}, {
		name:   "os.Exit in main packages only",
		why:    "it runs no deferred call; everything else returns an error",
		exempt: func(f *file) bool { return f.Name.Name == "main" },
		find:   func(f *file) []ast.Node { return f.selections("os", "Exit") },
		bad:    `package p; import "os"; func f() { os.Exit(1) }`,
		good:   `package main; import "os"; func main() { os.Exit(1) }`,
	}}
}

func TestSource(t *testing.T) {
	tr := loadTree(t)
	for _, r := range sourceRules() {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range tr.files {
				for _, n := range r.breaches(f) {
					t.Errorf("%s: %s: %s", tr.at(n), r.name, r.why)
				}
			}
		})
	}
}

func TestSourceRulesBite(t *testing.T) {
	for _, r := range sourceRules() {
		t.Run(r.name, func(t *testing.T) {
			if len(r.breaches(example(t, token.NewFileSet(), r.bad))) == 0 {
				t.Errorf("passes, though it breaks the rule: %s", r.bad)
			}
			if len(r.breaches(example(t, token.NewFileSet(), r.good))) != 0 {
				t.Errorf("found fault with, though it keeps the rule: %s", r.good)
			}
		})
	}
}

func (r sourceRule) breaches(f *file) []ast.Node {
	if r.exempt != nil && r.exempt(f) {
		return nil
	}
	return r.find(f)
}

func example(t *testing.T, fset *token.FileSet, source string) *file {
	t.Helper()
	syntax, err := parser.ParseFile(fset, "p.go", source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return newFile("p/p.go", syntax)
}

// skips finds the calls in n that skip a test with a text that matches, or without any.
func skips(n ast.Node, matches func(text string) bool) []ast.Node {
	var found []ast.Node
	ast.Inspect(n, func(n ast.Node) bool {
		if fn, ok := n.(*ast.FuncLit); ok && drawsCases(fn) {
			return false
		}
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); !ok || !slices.Contains([]string{"t", "b", "f", "tb"}, x.Name) {
			return true
		}
		if len(call.Args) == 0 || contains(call.Args[0], matches) {
			found = append(found, call)
		}
		return true
	})
	return found
}

// drawsCases reports whether fn is a property test of package rapid, where a skip only draws another case.
func drawsCases(fn *ast.FuncLit) bool {
	return slices.ContainsFunc(fn.Type.Params.List, func(param *ast.Field) bool {
		star, ok := param.Type.(*ast.StarExpr)
		if !ok {
			return false
		}
		sel, ok := star.X.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		pkg, ok := sel.X.(*ast.Ident)
		return ok && pkg.Name == "rapid" && sel.Sel.Name == "T"
	})
}

// contains reports whether a literal in n matches, as it is written in the source.
func contains(n ast.Node, matches func(text string) bool) bool {
	found := false
	ast.Inspect(n, func(n ast.Node) bool {
		lit, ok := n.(*ast.BasicLit)
		found = found || ok && matches(lit.Value)
		return !found
	})
	return found
}
