package flannel

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// object is a JSON object split into its members, whose values are not decoded: they are parts of the text that was read.
// A list of ten thousand leases is decoded at every start, so this is done with one look at the text for its validity and
// one for its members.
type object []member

type member struct{ name, value string }

// readObject splits a JSON object.
func readObject(data []byte) (object, error) {
	text := trim(string(data))
	if !json.Valid(data) || text[0] != '{' {
		return nil, notObject(data)
	}
	return splitObject(text), nil
}

// splitObject splits the JSON object that a valid text begins with. Of members with the same name the last one counts.
func splitObject(text string) object {
	o := make(object, 0, 8)
	for text = trim(text[1:]); text[0] != '}'; {
		var m member
		m.name, text = cutValue(text)
		m.name, _ = decodeText(m.name)     // names are strings
		m.value, text = cutValue(text[1:]) // after the colon
		o, text = append(o, m), trim(strings.TrimPrefix(text, ","))
	}
	return o.distinct()
}

// notObject says what data is instead.
func notObject(data []byte) error {
	var wrongType *json.UnmarshalTypeError
	switch err := json.Unmarshal(data, &struct{}{}); {
	case errors.As(err, &wrongType):
		return fmt.Errorf("want a JSON object, got %s", wrongType.Value)
	case err != nil:
		return fmt.Errorf("want a JSON object: %w", err)
	}
	return errors.New("want a JSON object, got null")
}

func trim(text string) string {
	for len(text) > 0 && (text[0] == ' ' || text[0] == '\t' || text[0] == '\r' || text[0] == '\n') {
		text = text[1:]
	}
	return text
}

// cutValue returns the JSON value that a valid text begins with, and what follows; neither begins with space.
func cutValue(text string) (value, rest string) {
	text = trim(text)
	end := valueEnd(text)
	return text[:end], trim(text[end:])
}

// valueEnd is the length of the JSON value that a valid text begins with.
func valueEnd(text string) int {
	switch text[0] {
	case '"':
		return stringEnd(text)
	case '{', '[':
		depth := 0
		for i := 0; ; i++ {
			switch text[i] {
			case '"':
				i += stringEnd(text[i:]) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	if end := strings.IndexAny(text, ",]} \t\r\n"); end >= 0 {
		return end
	}
	return len(text)
}

// stringEnd is the length of the JSON string that a valid text begins with.
func stringEnd(text string) int {
	for i := 1; ; i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

// decodeText decodes a valid JSON value that should be a string. The result may be a part of raw.
func decodeText(raw string) (string, error) {
	if raw[0] == '"' && isUnescaped(raw) {
		return raw[1 : len(raw)-1], nil
	}
	return decodeEscaped(raw)
}

// decodeEscaped stands apart for what it takes from the heap.
func decodeEscaped(raw string) (text string, err error) {
	err = json.Unmarshal([]byte(raw), &text)
	return text, err
}

// isUnescaped reports whether a string is the same with and without JSON's escapes.
func isUnescaped(raw string) bool {
	for i := range len(raw) {
		if raw[i] == '\\' || raw[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// distinct leaves out members that another of the same name follows.
func (o object) distinct() object {
	const most = 16 // and comparing each with each is quicker than a map
	if len(o) > most {
		last := make(map[string]int, len(o))
		for i, m := range o {
			last[m.name] = i
		}
		return o.filter(func(i int) bool { return last[o[i].name] == i })
	}
	return o.filter(func(i int) bool {
		return !slices.ContainsFunc(o[i+1:], func(m member) bool { return m.name == o[i].name })
	})
}

// filter keeps the members whose indices pass.
func (o object) filter(pass func(i int) bool) object {
	kept := o[:0]
	for i, m := range o {
		if pass(i) {
			kept = append(kept, m)
		}
	}
	return kept
}

// take removes the member called name, in whatever case, as encoding/json matches the fields of a struct.
// It returns "" if there is none. Among spellings the exact one counts, else the first in byte order.
func (o *object) take(name string) (value string) {
	var found member
	*o = slices.DeleteFunc(*o, func(m member) bool {
		if !strings.EqualFold(m.name, name) {
			return false
		}
		if found.value == "" || m.name == name || found.name != name && m.name < found.name {
			found = m
		}
		return true
	})
	return found.value
}

// text takes a member that is a string; "" if there is none, or if it is null. It keeps no other text alive.
func (o *object) text(name string) (string, error) {
	raw := o.take(name)
	if !present(raw) {
		return "", nil
	}
	text, err := decodeText(raw)
	if err != nil {
		return "", fmt.Errorf("%s %s is not a string", name, shorten(raw))
	}
	return strings.Clone(text), nil
}

// texts takes a member that is a list of strings, likewise.
func (o *object) texts(name string) (list []string, err error) {
	raw := o.take(name)
	if !present(raw) {
		return nil, nil
	}
	all := raw
	if raw[0] != '[' {
		return nil, notList(name, all)
	}
	for raw = trim(raw[1:]); raw[0] != ']'; raw = trim(strings.TrimPrefix(raw, ",")) {
		var item string
		item, raw = cutValue(raw)
		text, err := decodeText(item)
		if err != nil {
			return nil, notList(name, all)
		}
		list = append(list, strings.Clone(text))
	}
	return list, nil
}

func notList(name, raw string) error {
	return fmt.Errorf("%s %s is not a list of strings", name, shorten(raw))
}

// present reports whether a member is there and not null.
func present(raw string) bool { return raw != "" && raw != "null" }

// shorten cuts what an error quotes from the store, and replaces what does not show, or would have a terminal do something.
func shorten(raw string) string {
	const most = 64
	visible := func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}
	if len(raw) <= most {
		return strings.Map(visible, raw)
	}
	return strings.Map(visible, strings.ToValidUTF8(raw[:most], "")) + "..."
}
