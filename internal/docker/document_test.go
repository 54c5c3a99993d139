//go:build linux

package docker

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestDocumentSet(t *testing.T) {
	for _, test := range []struct {
		name, text, key, value, want string
	}{
		{"first of none", "{}\n", "mtu", "1450", "{\n  \"mtu\": 1450\n}\n"},
		{"first of none, spaced", "{ \n\n }", "mtu", "1450", "{\n  \"mtu\": 1450\n}"},
		{"further", "{\n    \"debug\" : true\n}\n", "mtu", "1450", "{\n    \"debug\" : true,\n    \"mtu\" : 1450\n}\n"},
		{"further, dense", `{"a":1,"b":[1, 2]}`, "mtu", "1450", `{"a":1,"b":[1, 2],"mtu":1450}`},
		{"further, in one line", `{ "a": 1, "b": 2 }`, "mtu", "1450", `{ "a": 1, "b": 2, "mtu": 1450 }`},
		{"commas before", "{ \"a\": 1\n, \"b\": 2\n}", "mtu", "1450", "{ \"a\": 1\n, \"b\": 2, \"mtu\": 1450\n}"},
		{"replace", `{"a":{"mtu":9},"mtu" :  1500 ,"b":1E2}`, "mtu", "1450", `{"a":{"mtu":9},"mtu" :  1450 ,"b":1E2}`},
		{"replace, escaped key", `{"\u006dtu":1500}`, "mtu", "1450", `{"\u006dtu":1450}`},
		{"remove first", "{\n  \"mtu\": 1,\n  \"a\": 1\n}", "mtu", "", "{\n  \"a\": 1\n}"},
		{"remove last", "{\n  \"a\": \"},{\",\n  \"mtu\": 1\n}", "mtu", "", "{\n  \"a\": \"},{\"\n}"},
		{"remove middle", `{"a":1, "mtu":1, "b":2}`, "mtu", "", `{"a":1, "b":2}`},
		{"remove only", "{ \"mtu\": 1 }", "mtu", "", "{  }"},
		{"remove none", `{"a":1}`, "mtu", "", `{"a":1}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, err := parseDocument([]byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			var value json.RawMessage
			if test.value != "" {
				value = json.RawMessage(test.value)
			}
			if d, err = d.set(test.key, value); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(d.text)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestDocumentRefused(t *testing.T) {
	for _, test := range []struct{ name, text, says string }{
		{"empty", "", "empty"},
		{"blank", " \n", "empty"},
		{"array", "[]", "not a JSON object"},
		{"null", "null", "not a JSON object"},
		{"comment", "{\n  // mine\n  \"mtu\": 1\n}", "line 2"},
		{"trailing comma", "{\n  \"mtu\": 1,\n}", "line 3"},
		{"cut off", "{\n  \"mtu\": 1", "line 2"},
		{"two objects", "{}\n{}", "line 2"},
		{"not UTF-8", "{\"a\":\"\xff\"}", "UTF-8"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := parseDocument([]byte(test.text)); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v does not say %s", err, test.says)
			}
		})
	}
	d, err := parseDocument([]byte(`{"mtu":1,"mtu":2}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.get("mtu"); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a key that is there twice: error %v", err)
	}
}

// drawDocument draws an object in any formatting that JSON allows, with keys that Tulle sets among the others.
func drawDocument(t *rapid.T) string {
	keys := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{
		`"debug"`, `"hosts"`, `"log-opts"`, `""`, `"bip\u0000"`, `"\"mtu\""`, `"dns"`, `"ü{"`,
		`"bip"`, `"mtu"`, `"ip-masq"`, `"\u0069pv6"`, `"bridge"`, `"fixed-cidr"`, `"bip6"`,
	}), 0, 9, rapid.ID[string]).Draw(t, "keys")
	space := rapid.StringOfN(rapid.SampledFrom([]rune(" \n\t\r")), 0, 4, -1)
	value := rapid.SampledFrom([]string{
		`true`, `null`, `0`, `-0`, `1450`, `1.45e3`, `1E+400`, `"x"`, `""`, `"10.5.1.1/24"`, `"},\"mtu\":1{["`, `"\ud800"`,
		`[]`, `{}`, "[ 1,\n{\"mtu\" :2} ]", `{"bip":"a","bip":"b"}`, `"é\\"`, `[[["}"]]]`,
	})
	var b strings.Builder
	b.WriteString(space.Draw(t, "before") + "{" + space.Draw(t, "inside"))
	for i, key := range keys {
		if i > 0 {
			b.WriteString("," + space.Draw(t, "lead"))
		}
		fmt.Fprintf(&b, "%s%s:%s%s%s", key, space.Draw(t, "name"), space.Draw(t, "colon"), value.Draw(t, "value"), space.Draw(t, "trail"))
	}
	b.WriteString("}" + space.Draw(t, "after"))
	return b.String()
}

// values maps every key to its value as it is written.
func values(t *rapid.T, text []byte) map[string]string {
	d, err := parseDocument(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	all := map[string]string{}
	for _, m := range d.members {
		all[m.key] = string(text[m.value.from:m.value.to])
	}
	return all
}
