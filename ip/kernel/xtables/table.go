package xtables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"tulle/ip"
)

// Table is the content of a table of one family.
type Table struct {
	Family ip.Family
	Name   string
	chains []*chain
	end    *entry

	validHooks uint32
	entries    int // as they were read
}

// chain is a stretch of a table.
type chain struct {
	name  string
	hook  int    // negative: none
	head  *entry // names a chain without a hook
	rules []*entry
	foot  *entry // policy or return
	start int    // offset, set by render
}

// entry is a rule, or one of those around the rules.
type entry struct {
	data   []byte
	origin int    // index in the table as it was read, negative if it was not
	jump   *chain // of a standard target with an offset
	next   bool   // the offset is that of the following entry: go on
}

// block is a table as the kernel has it.
type block struct {
	validHooks       uint32
	hooks, underflow [hooks]uint32
	entries          int
	data             []byte
}

var errForm = errors.New("not in the form that iptables-legacy writes")

// parse takes a block apart.
func parse(f ip.Family, name string, b block) (*Table, error) {
	t := &Table{Family: f, Name: name, validHooks: b.validHooks, entries: b.entries}
	starts := map[int]*chain{}
	feet := map[int]int{}
	for h := range hooks {
		if b.validHooks&(1<<h) != 0 {
			feet[int(b.underflow[h])] = h
		}
	}
	offsets := map[*entry]int{}
	var current *chain
	for at, index := 0, 0; at < len(b.data); index++ {
		e, err := t.cut(b.data[at:], index)
		if err != nil {
			return nil, fmt.Errorf("read table %s at offset %d: %w", name, at, err)
		}
		offsets[e] = at
		if t.end != nil {
			return nil, fmt.Errorf("read table %s: %w", name, errForm)
		}
		hook := slices.Index(b.hooks[:], uint32(at))
		switch title, isHead := t.title(e); {
		case isHead && title == errorTarget:
			t.end = e
		case isHead:
			current = &chain{name: title, hook: -1, head: e}
			t.chains = append(t.chains, current)
			starts[at+len(e.data)] = current
		default:
			if hook >= 0 && b.validHooks&(1<<hook) != 0 {
				current = &chain{name: hookNames()[hook], hook: hook}
				t.chains = append(t.chains, current)
				starts[at] = current
			}
			if current == nil || current.hook >= 0 && current.foot != nil {
				return nil, fmt.Errorf("read table %s: %w", name, errForm)
			}
			current.rules = append(current.rules, e)
			if h, isFoot := feet[at]; isFoot && h == current.hook {
				current.close()
			}
		}
		at += len(e.data)
	}
	return t, t.link(starts, offsets)
}

// close makes the last rule the foot.
func (c *chain) close() {
	last := len(c.rules) - 1
	c.foot = c.rules[last]
	c.rules = c.rules[:last]
}

// link finds the chains that jumps lead to.
func (t *Table) link(starts map[int]*chain, offsets map[*entry]int) error {
	if t.end == nil {
		return fmt.Errorf("read table %s: %w", t.Name, errForm)
	}
	for _, c := range t.chains {
		if c.hook < 0 && len(c.rules) > 0 {
			c.close()
		}
		if c.foot == nil {
			return fmt.Errorf("read chain %s of table %s: %w", c.name, t.Name, errForm)
		}
		for _, e := range append(slices.Clone(c.rules), c.foot) {
			v, ok := t.verdict(e)
			if !ok || v < 0 {
				continue
			}
			e.next = int(v) == offsets[e]+len(e.data)
			if e.jump = starts[int(v)]; !e.next && e.jump == nil {
				return fmt.Errorf("read chain %s of table %s: %w", c.name, t.Name, errForm)
			}
		}
	}
	return nil
}

// cut returns the first entry of data.
func (t *Table) cut(data []byte, index int) (*entry, error) {
	l := layoutOf(t.Family)
	if len(data) < l.size {
		return nil, errForm
	}
	target := int(binary.NativeEndian.Uint16(data[l.targetOffset:]))
	size := int(binary.NativeEndian.Uint16(data[l.next:]))
	if target < l.size || size < target+extensionHeader || size > len(data) {
		return nil, errForm
	}
	return &entry{data: slices.Clone(data[:size]), origin: index}, nil
}

// target is the part of an entry that says what to do.
func (t *Table) target(e *entry) []byte {
	return e.data[binary.NativeEndian.Uint16(e.data[layoutOf(t.Family).targetOffset:]):]
}

// title is the name in an entry that begins a chain.
func (t *Table) title(e *entry) (string, bool) {
	target := t.target(e)
	if extensionTitle(target) != errorTarget {
		return "", false
	}
	return text(target[extensionHeader:]), true
}

// verdict is what an entry with a standard target holds.
func (t *Table) verdict(e *entry) (int32, bool) {
	target := t.target(e)
	if extensionTitle(target) != "" || len(target) < extensionHeader+4 {
		return 0, false
	}
	return int32(binary.NativeEndian.Uint32(target[extensionHeader:])), true
}

// all lists the entries in order.
func (t *Table) all() []*entry {
	var all []*entry
	for _, c := range t.chains {
		if c.head != nil {
			all = append(all, c.head)
		}
		all = append(append(all, c.rules...), c.foot)
	}
	return append(all, t.end)
}

// render is the inverse of parse.
func (t *Table) render() block {
	b := block{validHooks: t.validHooks, entries: len(t.all())}
	at := 0
	for _, c := range t.chains {
		if c.head != nil {
			at += len(c.head.data)
		}
		c.start = at
		for _, e := range c.rules {
			at += len(e.data)
		}
		if c.hook >= 0 {
			b.hooks[c.hook], b.underflow[c.hook] = uint32(c.start), uint32(at)
		}
		at += len(c.foot.data)
	}
	for _, e := range t.all() {
		verdict := -1
		switch {
		case e.next:
			verdict = len(b.data) + len(e.data)
		case e.jump != nil:
			verdict = e.jump.start
		}
		if verdict >= 0 {
			binary.NativeEndian.PutUint32(t.target(e)[extensionHeader:], uint32(verdict))
		}
		b.data = append(b.data, e.data...)
	}
	return b
}

// chain finds a chain by its name.
func (t *Table) chain(name string) *chain {
	i := slices.IndexFunc(t.chains, func(c *chain) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return t.chains[i]
}

func extensionTitle(data []byte) string { return text(data[extensionName:extensionRev]) }

// text is what stands before the first zero byte.
func text(b []byte) string {
	if i := slices.Index(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
