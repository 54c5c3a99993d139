package docker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
)

// document is the text of daemon.json. It is edited in place, so that what is not edited keeps its bytes: the order
// of the keys, the white space, the spelling of numbers.
type document struct {
	mark    []byte // the byte order mark before the text, if there is one
	text    []byte
	members []member
}

// member is one key of the top object and where it stands in the text.
type member struct {
	key    string
	name   span // the quoted key
	value  span
	starts int // the end of the comma or brace before it
}

type span struct{ from, to int }

// emptyDocument is what a daemon.json begins as.
const emptyDocument = "{}\n"

// content is the whole file.
func (d document) content() []byte { return slices.Concat(d.mark, d.text) }

const byteOrderMark = "\ufeff"

// parseDocument refuses what Docker would refuse. Errors name the line.
func parseDocument(content []byte) (document, error) {
	text := bytes.TrimPrefix(content, []byte(byteOrderMark))
	d := document{mark: content[:len(content)-len(text)], text: text}
	if bytes.HasPrefix(text, []byte{0xff, 0xfe}) || bytes.HasPrefix(text, []byte{0xfe, 0xff}) {
		return d, errors.New("it is UTF-16, which Docker 23 and newer reads and tulle cannot edit: make it UTF-8, as with iconv -f UTF-16 -t UTF-8")
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return d, errors.New("it is empty: write {} into it, or delete it")
	}
	if !utf8.Valid(text) {
		return d, errors.New("it is not UTF-8")
	}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil || whole == nil {
		return d, fmt.Errorf("%s: correct it first", explainSyntax(text, err))
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	if _, err := dec.Token(); err != nil {
		return d, err
	}
	for starts := int(dec.InputOffset()); dec.More(); {
		key, err := dec.Token()
		if err != nil {
			return d, err
		}
		m := member{key: key.(string), starts: starts}
		m.name.to = int(dec.InputOffset())
		m.name.from = starts + bytes.IndexByte(text[starts:], '"')
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return d, err
		}
		m.value.to = int(dec.InputOffset())
		m.value.from = m.value.to - len(value)
		d.members = append(d.members, m)
		if comma := bytes.IndexByte(text[m.value.to:], ','); comma >= 0 {
			starts = m.value.to + comma + 1
		}
	}
	return d, nil
}

// explainSyntax tells what is wrong with text, and in which line.
func explainSyntax(text []byte, err error) string {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return "it is not a JSON object"
	}
	at := min(max(int(syntax.Offset)-1, 0), len(text))
	return "line " + strconv.Itoa(1+bytes.Count(text[:at], []byte("\n"))) + ": " + syntax.Error()
}

// find returns the index of the member with a key, -1 if there is none, and an error if there are several.
func (d document) find(key string) (int, error) {
	found := -1
	for i, m := range d.members {
		if m.key != key {
			continue
		}
		if found >= 0 {
			return -1, fmt.Errorf("it has %q twice: delete one", key)
		}
		found = i
	}
	return found, nil
}

// get returns the value of a key as it is written, nil if there is none.
func (d document) get(key string) (json.RawMessage, error) {
	i, err := d.find(key)
	if i < 0 || err != nil {
		return nil, err
	}
	value := d.members[i].value
	return json.RawMessage(d.text[value.from:value.to]), nil
}

// set returns d with a value for a key; nil takes the key out.
func (d document) set(key string, value json.RawMessage) (document, error) {
	i, err := d.find(key)
	if err != nil {
		return d, err
	}
	switch {
	case i >= 0 && value != nil:
		return d.splice(d.members[i].value, value)
	case i >= 0:
		return d.splice(d.extent(i), nil)
	case value != nil:
		return d.add(key, value)
	}
	return d, nil
}

// extent is what must go for a member to go: one comma goes with it, if there is one.
func (d document) extent(i int) span {
	m := d.members[i]
	switch {
	case i > 0:
		return span{d.members[i-1].value.to, m.value.to}
	case len(d.members) > 1:
		return span{m.name.from, d.members[1].name.from}
	default:
		return span{m.name.from, m.value.to}
	}
}

// add puts a member last, spaced as the one before it.
func (d document) add(key string, value json.RawMessage) (document, error) {
	name := []byte(strconv.Quote(key))
	if len(d.members) == 0 {
		inside := span{bytes.IndexByte(d.text, '{') + 1, bytes.LastIndexByte(d.text, '}')}
		return d.splice(inside, bytes.Join([][]byte{[]byte("\n  "), name, []byte(": "), value, []byte("\n")}, nil))
	}
	last := d.members[len(d.members)-1]
	lead := d.text[last.starts:last.name.from]
	colon := d.text[last.name.to:last.value.from]
	return d.splice(span{last.value.to, last.value.to}, bytes.Join([][]byte{[]byte(","), lead, name, colon, value}, nil))
}

func (d document) splice(at span, text []byte) (document, error) {
	return parseDocument(slices.Concat(d.mark, d.text[:at.from], text, d.text[at.to:]))
}

// same reports whether two values mean the same. A missing value is nil.
func same(a, b json.RawMessage) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	switch x.(type) {
	case bool, float64, string, nil:
		return x == y
	}
	return bytes.Equal(a, b)
}
