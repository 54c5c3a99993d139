package flannel

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestNodeIDOfALease(t *testing.T) {
	for id, sound := range map[string]bool{
		"h1": true, "4bb5d920602a256f": true, "rack-7.node_1": true, "a.example.org": true, strings.Repeat("x", 64): true,
		strings.Repeat("x", 65): false, strings.Repeat("x", 30000): false, "h\x1b[2J": false, "h\n": false, "h\u202e": false, "h\x00": false,
		"-x": false, ".x": false, "a/b": false, "a b": false, "é": false,
	} {
		for _, field := range []string{ownerNode, ownerInstance} {
			value, err := json.Marshal(map[string]any{fieldPublicIP: "192.0.2.7", fieldTulle: map[string]any{ownerNode: "h1", field: id}})
			if err != nil {
				t.Fatal(err)
			}
			err = new(Attrs).UnmarshalJSON(value)
			if (err == nil) != sound {
				t.Errorf("lease with %s %.70q: %v, want it read: %t", field, id, err, sound)
			}
			if text := ""; err != nil {
				if text = err.Error(); len(text) > 700 || strings.ContainsAny(text, "\x1b\n\x00\u202e") {
					t.Errorf("lease with %s %.70q: error %q, want it short and harmless", field, id, text)
				}
			}
		}
	}
}
