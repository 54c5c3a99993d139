package subnet

import (
	"strings"
	"testing"
)

func TestCheckNodeID(t *testing.T) {
	for id, sound := range map[string]bool{
		"h1": true, "4bb5d920602a256f": true, "rack-7.node_1": true, "a.example.org": true, strings.Repeat("x", 64): true,
		strings.Repeat("x", 65): false, strings.Repeat("x", 30000): false, "h\x1b[2J": false, "h\n": false, "h\u202e": false, "h\x00": false,
		"-x": false, ".x": false, "a/b": false, "a b": false, "é": false,
	} {
		if err := CheckNodeID(id); (err == nil) != sound {
			t.Errorf("%.70q: %v, want it sound: %t", id, err, sound)
		}
	}
}
