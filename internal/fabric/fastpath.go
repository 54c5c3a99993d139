package fabric

import (
	"tulle/internal/decision"
	"tulle/ip"
)

// UseFastPath says whether this host has a fast path, before the first pass.
func (f *Fabric) UseFastPath(has bool) { f.cfg.Options.FastPath = has }

// FastPath is what the network wants of the fast path, as the last pass that decided says; nil before, and where the host has none. What it points to
// never changes: when something else is wanted, it points elsewhere.
func (f *Fabric) FastPath() *ip.FastPath { return f.fastPath }

// wantFastPath derives what is wanted of the fast path from a decision. Where that says what the last one did, as links does, all stays as it is.
func (f *Fabric) wantFastPath(links ip.FastPath, want ip.State, unchanged bool) {
	if !f.cfg.Options.FastPath || unchanged && f.fastPath != nil && f.fastPath.SameLinks(links) {
		return
	}
	wanted := decision.FastPath(links, want)
	f.fastPath = &wanted
}

// exchangeFastPath takes in that some peers have gone and others have come.
func (f *Fabric) exchangeFastPath(former, now ip.State) {
	if f.fastPath == nil {
		return
	}
	wanted := f.fastPath.Exchange(decision.FastPath(*f.fastPath, former), decision.FastPath(*f.fastPath, now))
	f.fastPath = &wanted
}
