package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"tulle/subnet"
)

// complaints are what hosts say in the store of peers that their packets do not arrive at.
type complaints struct {
	Complaints []subnet.Complaint `json:"complaints"`
	Unreached  []unreached        `json:"unreached"` // hosts that several others do not reach, and that complain of nobody, by lease
	Problems   []subnet.Problem   `json:"problems"`
}

// unreached is a host that others do not reach.
type unreached struct {
	Lease string `json:"lease"`
	Node  string `json:"node,omitempty"`
	By    int    `json:"by"` // hosts that say so
}

// several is how many hosts say the same of another before it is more likely that one's fault than that of something between.
const several = 2

func readComplaints(ctx context.Context, s subnet.Operator) (complaints, error) {
	list, unreadable, err := s.Complaints(ctx)
	// Empty lists, not null.
	return complaints{Complaints: append([]subnet.Complaint{}, list...), Unreached: unreachedBy(list), Problems: append([]subnet.Problem{}, unreadable...)}, err
}

func unreachedBy(list []subnet.Complaint) []unreached {
	found := map[string]unreached{}
	for _, c := range list {
		said := map[string]bool{}
		for _, p := range c.Peers {
			if p.State == subnet.PeerUnreachable && !said[p.Lease] {
				said[p.Lease] = true
				u := found[p.Lease]
				found[p.Lease] = unreached{p.Lease, cmp.Or(u.Node, p.Node), u.By + 1}
			}
		}
	}
	for _, c := range list {
		delete(found, c.Lease)
	}
	all := []unreached{}
	for _, u := range found {
		if u.By >= several {
			all = append(all, u)
		}
	}
	slices.SortFunc(all, func(a, b unreached) int { return cmp.Compare(a.Lease, b.Lease) })
	return all
}

func printComplaints(w io.Writer, all complaints) error {
	if len(all.Complaints) == 0 {
		fmt.Fprintln(w, "no host says that packets to another do not arrive: those would whose tulled runs with --probe=on")
	} else if err := printBadPeers(w, all.Complaints); err != nil {
		return err
	}
	for _, c := range all.Complaints {
		if c.More > 0 {
			fmt.Fprintf(w, "%s: %d peers besides\n", shownName(c.Node), c.More)
		}
	}
	for _, u := range all.Unreached {
		fmt.Fprintf(w, "%s: %d hosts do not reach it\n", shownName(cmp.Or(u.Node, u.Lease)), u.By)
	}
	for _, p := range all.Problems {
		fmt.Fprintf(w, "left out: %s: %s\n", shownName(p.Key), shown(p.Reason))
	}
	return nil
}

func printBadPeers(w io.Writer, list []subnet.Complaint) error {
	t := newTable(w, "FROM", "TO", "FAMILY", "WAY", "STATE", "SIZE", "SINCE")
	for _, c := range list {
		for _, p := range c.Peers {
			size := "-"
			if p.State == subnet.PeerNarrow && p.Size > 0 {
				size = fmt.Sprintf("%d of %d", p.Size, p.Full)
			}
			t.row(c.Node, cmp.Or(p.Node, p.Lease), p.Family, p.Way, p.State, size, p.Since.UTC().Format(time.RFC3339))
		}
	}
	return t.flush()
}
