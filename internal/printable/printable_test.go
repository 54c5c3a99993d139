package printable

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestText(t *testing.T) {
	for s, want := range map[string]string{
		"":                       "",
		"rack-7.node_1":          "rack-7.node_1",
		`say "x" \ y`:            `say "x" \ y`,
		"naïve 節点":               "naïve 節点",
		"a\x1b[2Jb":              `"a\x1b[2Jb"`,
		"a\nb\tc":                `"a\nb\tc"`,
		"a\u202eb":               `"a\u202eb"`,
		"a\x00\x7f\u009b":        `"a\x00\x7f\u009b"`,
		"a\u200b\u0301\u3164":    `"a\u200b\u0301\u3164"`,
		"a\xff":                  `"a\xff"`,
		"\"\x1b\\":               `"\"\x1b\\"`,
		strings.Repeat("x", 24):  strings.Repeat("x", 24),
		strings.Repeat("x", 25):  `"` + strings.Repeat("x", 19) + `..."`,
		strings.Repeat("節", 13):  `"` + strings.Repeat("節", 9) + `..."`,
		strings.Repeat("\n", 30): `"` + strings.Repeat(`\n`, 9) + `..."`,
	} {
		if got := Text(s, 24); got != want {
			t.Errorf("%q becomes %s, want %s", s, got, want)
		}
	}
	if got, want := Lines("one\ntwo\x1b\nthree"), "one\n\"two\\x1b\"\nthree"; got != want {
		t.Errorf("lines %q, want %q", got, want)
	}
}

func TestJSON(t *testing.T) {
	for s, want := range map[string]string{
		"{\r\n\t\"a\": [1, \"naïve 節\"]\r}":     "{\n\t\"a\": [1, \"naïve 節\"]\n}",
		"\"\u202e\u0301\U000e0001 \x7f\u009b\"": `"\u202e\u0301\udb40\udc01 \u007f\u009b"`,
		"no JSON \x1b[2J\x00\xff":               "no JSON \\u001b[2J\\u0000\ufffd",
	} {
		got := JSON(s)
		if got != want {
			t.Errorf("%q becomes %q, want %q", s, got, want)
		}
		var before, after any
		if json.Unmarshal([]byte(s), &before) == nil && (json.Unmarshal([]byte(got), &after) != nil || !reflect.DeepEqual(before, after)) {
			t.Errorf("%q means %v, and %v before", got, after, before)
		}
	}
}

func TestTextIsHarmless(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		checkText(t, rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "text"), rapid.IntRange(16, 60).Draw(t, "most"))
	})
}

func FuzzText(f *testing.F) {
	f.Add("a\x1b[2J\u202e\x00\n", 16)
	f.Fuzz(func(t *testing.T, s string, most int) { checkText(t, s, 16+most&0xff) })
}

func checkText(t interface{ Errorf(string, ...any) }, s string, most int) {
	got := Text(s, most)
	for _, r := range got {
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Bidi_Control, unicode.Zl, unicode.Zp, unicode.Mn, unicode.Me, unicode.Co, unicode.Cs) {
			t.Errorf("%q becomes %q, which has %U", s, got, r)
		}
	}
	if !utf8.ValidString(got) || columns(got) > most {
		t.Errorf("%q becomes %q, of %d columns, want at most %d, valid", s, got, columns(got), most)
	}
	if again := Text(got, most); again != got {
		t.Errorf("%q becomes %q, and that %q", s, got, again)
	}
	if sound(s) && columns(s) <= most && got != s {
		t.Errorf("%q becomes %q, though it is sound", s, got)
	}
}
