package subnet

import (
	"cmp"
	"iter"
	"slices"
)

// Problem is something in the store that was left out, and why.
type Problem struct {
	Key    string `json:"key"`
	Reason string `json:"reason"`
}

// mostBroken bounds how many keys that make no sense a view lists: whoever may write to the store can put any number there.
const mostBroken = 20

// ListBroken lists the first of the keys that make no sense, each with the reason, and counts those that are left.
func ListBroken(keys iter.Seq2[string, string]) (first []Problem, unlisted int) {
	for key, reason := range keys {
		i, _ := slices.BinarySearchFunc(first, key, func(p Problem, key string) int { return cmp.Compare(p.Key, key) })
		if i < mostBroken {
			first = slices.Insert(first, i, Problem{key, reason})
		}
		if len(first) > mostBroken || i == mostBroken {
			first, unlisted = first[:mostBroken], unlisted+1
		}
	}
	return first, unlisted
}
