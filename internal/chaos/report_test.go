//go:build linux

package chaos

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// reportEnv names a file for the report.
const reportEnv = "TULLE_CHAOS_REPORT"

// report is what was measured, a line for each script.
type report struct {
	mu   sync.Mutex
	rows []outcome
}

func (r *report) add(o outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, o)
}

func (r *report) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var text strings.Builder
	text.WriteString("| fault | sent | lost | longest gap (ms) | recovery (ms) | allowed (ms) | result |\n|---|--:|--:|--:|--:|--:|---|\n")
	for _, o := range r.rows {
		result := "ok"
		if o.err != nil {
			result = "FAILED: " + firstLine(o.err.Error())
		}
		fmt.Fprintf(&text, "| %s: %s | %d | %d | %d | %d | %d | %s |\n",
			o.name, strings.TrimSuffix(o.purpose, "."), o.sent, o.lost, ms(o.gap), ms(o.recovery), ms(o.allowed), result)
	}
	return text.String()
}

func ms(d time.Duration) int64 { return max(0, d.Milliseconds()) }

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// publish prints the report, and writes it to the file that the environment
// names.
func (r *report) publish(t *testing.T) {
	t.Helper()
	text := r.String()
	t.Log("\n" + text)
	if path := os.Getenv(reportEnv); path != "" {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Error(err)
		}
	}
}
