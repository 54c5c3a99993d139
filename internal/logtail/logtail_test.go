package logtail

import (
	"fmt"
	"strings"
	"testing"
)

func TestTailKeepsTheLastWholeLines(t *testing.T) {
	tail := New(20)
	var all strings.Builder
	for n := range 100 {
		line := fmt.Sprintf("line %d\n", n)
		all.WriteString(line)
		if wrote, err := tail.Write([]byte(line)); wrote != len(line) || err != nil {
			t.Fatalf("Write = %d, %v", wrote, err)
		}
		got := string(tail.Lines())
		if !strings.HasSuffix(all.String(), got) || len(got) > 20 || !strings.HasPrefix(got, "line ") {
			t.Fatalf("after %q kept %q", line, got)
		}
		if n > 2 && len(got) < 20-len(line) {
			t.Fatalf("after %q kept %q alone", line, got)
		}
	}
	if got, want := string(tail.Lines()), "line 98\nline 99\n"; got != want {
		t.Errorf("kept %q, want %q", got, want)
	}
}

func TestTailOfALongLine(t *testing.T) {
	tail := New(20)
	fmt.Fprintf(tail, "short\n%s\n", strings.Repeat("x", 100))
	if got := tail.Lines(); len(got) != 0 {
		t.Errorf("kept %q, want no part of a line", got)
	}
	fmt.Fprint(tail, "next\n")
	if got := string(tail.Lines()); got != "next\n" {
		t.Errorf("kept %q", got)
	}
}
