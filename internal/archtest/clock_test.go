package archtest

import (
	"go/ast"
	"go/token"
	"slices"
	"testing"
)

// wallClock finds where a time without a reading of the monotonic clock comes from, other than for people to read, and
// where one that was read from a file or an answer is compared.
func wallClock(f *file) []ast.Node {
	found := f.selections("time", "Date", "Parse", "ParseInLocation")
	shown := map[ast.Node]bool{} // those before .Format
	ast.Inspect(f.File, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		switch sel.Sel.Name {
		case "Format":
			shown[sel.X] = true
		case "UTC", "Local", "In", "Truncate", "AddDate", "Unix", "UnixNano", "UnixMilli", "UnixMicro", "ModTime":
			if !shown[call] {
				found = append(found, call)
			}
		case "After", "Before", "Compare", "Equal", "Sub", "Since", "Until":
			if slices.ContainsFunc(append([]ast.Expr{sel.X}, call.Args...), isTimeField) {
				found = append(found, call)
			}
		}
		return true
	})
	return found
}

// isTimeField reports whether e is a field named Time, as those of files and answers are.
func isTimeField(e ast.Expr) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != "Time" {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return !ok || x.Name != "time"
}

func TestWallClockIsFound(t *testing.T) {
	for source, want := range map[string]int{
		`func f(t time.Time) bool { return time.Unix(0, 0).Before(t) }`:                  1,
		`func f(t time.Time) bool { return t.UTC().Before(time.Now()) }`:                 1,
		`func f(t time.Time) int64 { return t.UnixNano() }`:                              1,
		`func f(k struct{ Time time.Time }) any { return time.Since(k.Time) }`:           1,
		`func f(k struct{ Time time.Time }, t time.Time) any { return t.Sub(k.Time) }`:   1,
		`func f(k struct{ Time time.Time }, t time.Time) any { return k.Time.After(t) }`: 1,
		`func f(k struct{ Time time.Time }) any { return k.Time.UTC().Format("") }`:      0,
		`func f(t time.Time) any { return time.Until(t) }`:                               0,
		`func f(d time.Duration) any { return d.Round(time.Second) }`:                    0,
	} {
		found := wallClock(example(t, token.NewFileSet(), `package p; import "time"; `+source))
		if len(found) != want {
			t.Errorf("found %d, want %d: %s", len(found), want, source)
		}
	}
}
