package ip

import (
	"cmp"
	"fmt"
	"slices"
)

// Attachment is what another program has hung on a link of Tulle's, where it may drop or change packets that no chain and no route tells of. It
// goes with the link, and is never touched.
type Attachment struct {
	Link string
	What string // as people call it, such as: the tc filter u32 at ingress
	Show string // the command that shows it
}

func (a Attachment) String() string {
	return fmt.Sprintf("%s has %s, which is another program's and may drop packets between containers: see %s", a.Link, a.What, a.Show)
}

// SortAttachments sorts, and leaves out what is there twice.
func SortAttachments(all []Attachment) []Attachment {
	slices.SortFunc(all, func(a, b Attachment) int { return cmp.Or(cmp.Compare(a.Link, b.Link), cmp.Compare(a.What, b.What)) })
	return slices.Compact(all)
}
