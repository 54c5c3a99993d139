package flannel

import (
	"bytes"
	"encoding/json"
	"maps"
	"testing"
)

// FuzzObject holds the splitting of objects against encoding/json.
func FuzzObject(f *testing.F) {
	for _, text := range []string{
		`{}`, ` { "a" : 1 , "b":[1,{"c":"]}\""}], "a":null} `, `{"\u0061":"\\","é":-1.5e3,"":{}}`, `null`, `[]`, `{"a":1`, `"x"`, "{\"\xff\":true}",
		`{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"j":0,"k":1,"l":2,"m":3,"n":4,"o":5,"p":6,"q":7,"a":8}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want map[string]json.RawMessage
		err := json.Unmarshal(text, &want)
		o, got := readObject(text)
		if (err == nil && want != nil) != (got == nil) {
			t.Fatalf("error %v, encoding/json has %v", got, err)
		}
		if got != nil {
			return
		}
		members := map[string]json.RawMessage{}
		for _, m := range o {
			members[m.name] = json.RawMessage(m.value)
		}
		if len(members) != len(o) || !maps.EqualFunc(members, want, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Errorf("members %v, want %s", o, want)
		}
	})
}

func BenchmarkAttrs(b *testing.B) {
	text := []byte(`{"PublicIP":"10.99.0.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"4e:f3:a5:78:97:d4"},` +
		`"Tulle":{"Node":"4c9c5a0f5ac34f0db6d0bd0f2fc1dd29","Instance":"0d1c8a51-f9f4-4e3a-9d32-0f1f0bd5ac11","Hardware":["a5ad0e1c","77aa01fe"]}}`)
	b.ReportAllocs()
	for b.Loop() {
		var a Attrs
		if err := a.UnmarshalJSON(text); err != nil {
			b.Fatal(err)
		}
	}
}
