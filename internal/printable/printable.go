// Package printable makes text from elsewhere fit to be shown on a terminal: text of other hosts, of the store, or of other
// programs may hold what moves the cursor, turns the direction of writing, begins a line, or fills the screen.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds on what is shown of one text, in columns.
const (
	Cell = 128  // in a table
	Line = 1024 // in a message
)

// Text returns s itself if it has at most most columns and nothing but visible characters and spaces. Otherwise all else in it is
// escaped as in Go, it stands in quotes, and is cut to most columns, which must be 16 or more. Combining characters are escaped too.
func Text(s string, most int) string {
	if sound(s) && columns(s) <= most {
		return s
	}
	const cut = `..."`
	var b strings.Builder
	b.WriteByte('"')
	width, fits := 1, 1 // columns so far; length up to where it can be cut
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		piece := s[:size]
		if r == '"' || r == '\\' || r == utf8.RuneError && size == 1 || !visible(r) {
			piece = strings.Trim(strconv.QuoteToASCII(piece), `"`)
			if r == '"' {
				piece = `\"`
			}
		}
		s = s[size:]
		width += columns(piece)
		if width+1 > most {
			return b.String()[:fits] + cut
		}
		b.WriteString(piece)
		if width+len(cut) <= most {
			fits = b.Len()
		}
	}
	b.WriteByte('"')
	return b.String()
}

// Lines is Text for each of the lines of s, which stay lines.
func Lines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = Text(line, Line)
	}
	return strings.Join(lines, "\n")
}

// JSON returns s with what does not show as itself as a JSON escape (RFC 8259, 7), line ends and tabs aside: JSON keeps its meaning. Of
// text that is no JSON, which is told by reading it, each invalid byte becomes U+FFFD.
func JSON(s string) string {
	var b strings.Builder
	for _, r := range strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s) {
		switch {
		case r == '\n' || r == '\t' || visible(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func sound(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !visible(r) })
}

// visible reports whether r shows as itself, beside what is before it. Package unicode counts what is formatting, such as the
// marks of bidirectional text, as not printable, but some letters that show nothing as printable.
func visible(r rune) bool {
	return unicode.IsPrint(r) && !unicode.Is(unicode.Mn, r) && !unicode.Is(unicode.Me, r) &&
		!unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r)
}

// columns is how many columns s takes at most: from Hangul on (U+1100), characters may be two wide.
func columns(s string) int {
	n := 0
	for _, r := range s {
		if n++; r >= 0x1100 {
			n++
		}
	}
	return n
}
