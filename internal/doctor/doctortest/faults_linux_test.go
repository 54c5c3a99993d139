package doctortest

import (
	"strings"
	"testing"

	"tulle/ip"
)

// Every fault is named first, with the fix that the table has, which heals it when it is pasted.
func TestFaults(t *testing.T) {
	for backend, tried := range map[string]func(Row) bool{
		"vxlan":   func(Row) bool { return !testing.Short() }, // under the race detector no row has more to show than another
		"host-gw": func(r Row) bool { return r.Direct },
	} {
		t.Run(backend, func(t *testing.T) {
			w := newWorld(t, backend)
			w.until(t, "h1", healedWithin, "healthy from the beginning", healthy)
			for _, row := range Rows() {
				if tried(row) && !t.Run(row.Fault, func(t *testing.T) { w.test(t, row) }) {
					t.Fatal("the faults after it are not tried: this one may be there still")
				}
			}
		})
	}
}

// Nothing is found on hosts of one family, with containers that are fine.
func TestHealthy(t *testing.T) {
	for _, f := range ip.Families() {
		t.Run(f.String(), func(t *testing.T) {
			w := newWorld(t, "vxlan", f)
			for _, host := range []string{"h1", "h2"} {
				w.until(t, host, healedWithin, "healthy", healthy)
			}
			if _, err := w.ask(t, "h1", "c7"); err == nil || !strings.Contains(err.Error(), "exit status 2") || !strings.Contains(err.Error(), `has no container "c7"`) {
				t.Errorf("of a container that is not there it says %v", err)
			}
		})
	}
}
