package xtables

import (
	"slices"

	"tulle/ip"
)

// Open puts an opening into its chain; false if there is no such chain.
func (t *Table) Open(o ip.Opening) bool {
	c := t.chain(o.Chain)
	if c == nil {
		return false
	}
	at := 0
	if o.Last() {
		at = len(c.rules)
	}
	c.rules = slices.Insert(c.rules, at, t.encode(o))
	return true
}

// Close takes an opening away; false if it was not there.
func (t *Table) Close(o ip.Opening) bool {
	c := t.chain(o.Chain)
	return c != nil && c.drop(func(e *entry) bool {
		rules := t.rules(c, e)
		have, ok := (ip.Filter{Place: t.place(c)}).Opening(rules[0])
		return ok && len(rules) == 1 && have == o
	})
}

// DeleteChain deletes a chain without a hook, and the rules that lead to it; false if there is no such chain.
func (t *Table) DeleteChain(name string) bool {
	c := t.chain(name)
	if c == nil || c.hook >= 0 {
		return false
	}
	for _, other := range t.chains {
		other.drop(func(e *entry) bool { return e.jump == c })
	}
	t.chains = slices.DeleteFunc(t.chains, func(other *chain) bool { return other == c })
	return true
}

// drop deletes the rules that which picks; false if it picks none.
func (c *chain) drop(which func(*entry) bool) bool {
	before := len(c.rules)
	c.rules = slices.DeleteFunc(c.rules, which)
	return len(c.rules) < before
}
