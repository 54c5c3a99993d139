package fabric

import (
	"tulle/internal/decision"
	"tulle/ip"
)

// UseFastPath says whether this host has a fast path, before the first pass.
func (f *Fabric) UseFastPath(has bool) { f.cfg.Options.FastPath = has }

// FastPath is what the network wants of the fast path, as the last pass that decided says; nil before, and where the host has none. What it points to
// never changes: when something else is wanted, it points elsewhere. It is derived when it is asked for, since no pass needs it.
func (f *Fabric) FastPath() *ip.FastPath {
	if f.fastLinks != nil {
		wanted := decision.FastPath(*f.fastLinks, f.wanted)
		f.fastPath, f.fastLinks = &wanted, nil
	}
	return f.fastPath
}

// wantFastPath takes in what a decision says of the fast path. Where that says what the last one did, as links does, all stays as it is.
func (f *Fabric) wantFastPath(links ip.FastPath, unchanged bool) {
	if f.cfg.Options.FastPath && !(unchanged && f.fastPath != nil && f.fastLinks == nil && f.fastPath.SameLinks(links)) {
		f.fastLinks = &links
	}
}

// exchangeFastPath takes in that some peers have gone and others have come.
func (f *Fabric) exchangeFastPath(former, now ip.State) {
	if f.fastPath == nil || f.fastLinks != nil { // what is derived later has them
		return
	}
	wanted := f.fastPath.Exchange(decision.FastPath(*f.fastPath, former), decision.FastPath(*f.fastPath, now))
	f.fastPath = &wanted
}
