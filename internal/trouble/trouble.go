// Package trouble gives what is wrong with a host a code, so that people, alerts and programs are told the same.
package trouble

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

// Code names a kind of trouble. It never changes its meaning.
type Code string

// Severity is what a trouble means for the host.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // the host is not ready: packets may be lost, or new containers may not start
	Warning Severity = "warning" // packets flow, and something should be done before they do not
	Advice  Severity = "advice"  // packets flow, and something could be better
)

// Trouble is one thing that is wrong.
type Trouble struct {
	Code     Code     `json:"code"`
	Severity Severity `json:"severity"`
	Network  string   `json:"network,omitempty"` // whose it is, on a host with several
	Subject  string   `json:"subject,omitempty"` // what it is about: a key of the store, an interface, an object in the kernel
	Text     string   `json:"text"`
	Remedy   string   `json:"remedy"`
}

// longest bounds a subject and a text, in bytes: the log, the status and whoever asks for it get them whole, and others may have written them, such as a
// key of the store.
const longest = 4 << 10

// New returns a trouble with the severity and the remedy of its kind.
func New(code Code, subject, text string) Trouble {
	k := kindOf(code)
	return Trouble{Code: code, Severity: k.Severity, Subject: cut(subject), Text: cut(text), Remedy: k.Remedy}
}

func cut(text string) string {
	if len(text) <= longest {
		return text
	}
	return strings.ToValidUTF8(text[:longest], "") + "..."
}

// codedError is an error whose kind is known.
type codedError struct {
	code    Code
	subject string
	err     error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// Wrap gives an error a code. Nil stays nil.
func Wrap(code Code, subject string, err error) error {
	if err == nil {
		return nil
	}
	return &codedError{code, subject, err}
}

// Of returns the troubles that an error tells of: one for each coded error in its tree that has no coded one in it. What has no code
// counts as KernelFailed, since all else is given one.
func Of(err error) []Trouble {
	if err == nil {
		return nil
	}
	if found := coded(err); len(found) > 0 {
		return found
	}
	return []Trouble{New(KernelFailed, "", err.Error())}
}

func coded(err error) []Trouble {
	var found []Trouble
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			found = append(found, coded(one)...)
		}
		return found
	case interface{ Unwrap() error }:
		found = coded(e.Unwrap())
	}
	if c, ok := err.(*codedError); ok && len(found) == 0 {
		var all interface{ Unwrap() []error }
		if errors.As(c.err, &all) {
			for _, one := range all.Unwrap() {
				found = append(found, New(c.code, c.subject, one.Error()))
			}
			return found
		}
		found = []Trouble{New(c.code, c.subject, err.Error())}
	}
	return found
}

// most bounds how many troubles of one code are told.
const most = 20

// List holds troubles, at most twenty of a code, and counts them all.
type List struct {
	All   []Trouble    `json:"all"`
	Count map[Code]int `json:"count"`
}

// Add adds troubles.
func (l *List) Add(ts ...Trouble) {
	for _, t := range ts {
		if l.Count == nil {
			l.Count = map[Code]int{}
		}
		if l.Count[t.Code]++; l.Count[t.Code] <= most {
			l.All = append(l.All, t)
		}
	}
}

// AddUnlisted counts troubles of a code that are not listed.
func (l *List) AddUnlisted(code Code, n int) {
	if n == 0 {
		return
	}
	if l.Count == nil {
		l.Count = map[Code]int{}
	}
	l.Count[code] += n
}

// Join adds the troubles of another list.
func (l *List) Join(other List) {
	l.Add(other.All...)
	for code := range other.Count {
		l.AddUnlisted(code, other.Unlisted(code))
	}
}

// Unlisted is how many troubles of a code are counted and not listed.
func (l List) Unlisted(code Code) int { return l.Count[code] - len(l.Of(code)) }

// Of returns the troubles that have one of the codes.
func (l List) Of(codes ...Code) []Trouble {
	var found []Trouble
	for _, t := range l.All {
		if slices.Contains(codes, t.Code) {
			found = append(found, t)
		}
	}
	return found
}

// Texts is Of, of which only the texts.
func (l List) Texts(codes ...Code) []string {
	var texts []string
	for _, t := range l.Of(codes...) {
		texts = append(texts, t.Text)
	}
	return texts
}

// Has reports whether there is a trouble with the code.
func (l List) Has(code Code) bool { return l.Count[code] > 0 }

// With returns a list with more troubles. The list itself stays as it is.
func (l List) With(ts ...Trouble) List {
	more := List{All: slices.Clone(l.All), Count: maps.Clone(l.Count)}
	more.Add(ts...)
	return more
}

// Without returns a list without the troubles of a code. The list itself stays as it is.
func (l List) Without(code Code) List {
	if l.Count[code] == 0 {
		return l
	}
	less := List{All: slices.Clone(l.All), Count: maps.Clone(l.Count)}
	less.All = slices.DeleteFunc(less.All, func(t Trouble) bool { return t.Code == code })
	delete(less.Count, code)
	return less
}
