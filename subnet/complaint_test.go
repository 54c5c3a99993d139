package subnet

import (
	"strings"
	"testing"
	"time"
)

// badPeer has texts as long as they come.
func badPeer() BadPeer {
	return BadPeer{
		Lease: "255.255.255.252-30&ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe-127", Node: strings.Repeat("n", maxID), Family: "ipv4", Way: "underlay",
		State: PeerUnreachable, Size: mostPacket, Full: mostPacket, Since: time.Date(2026, 11, 30, 23, 57, 21, 999999999, time.FixedZone("", -3600)),
	}
}

func badComplaint() Complaint {
	c := Complaint{Node: strings.Repeat("c", maxID), Lease: badPeer().Lease, Time: badPeer().Since, More: mostBesides}
	for range MostBadPeers {
		c.Peers = append(c.Peers, badPeer())
	}
	return c
}

// The longest complaint fits, and what is read says what was written.
func TestComplaintFits(t *testing.T) {
	c := badComplaint()
	value, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseComplaint(c.Node, []byte(strings.Replace(value, `"node"`, `"later":{"a":[1]},"node"`, 1)))
	if err != nil || !got.Says(&c) || !got.Time.Equal(c.Time) {
		t.Errorf("%d bytes read as %+v, %v", len(value), got, err)
	}
}

func TestComplaintNonsense(t *testing.T) {
	for name, spoil := range map[string]func(*Complaint){
		"no node":         func(c *Complaint) { c.Node = "" },
		"a node's name":   func(c *Complaint) { c.Node = "a/b" },
		"a lease":         func(c *Complaint) { c.Lease = "10.5.1.0/24" },
		"nobody":          func(c *Complaint) { c.Peers = nil },
		"too many":        func(c *Complaint) { c.Peers = append(c.Peers, badPeer()) },
		"fewer than none": func(c *Complaint) { c.More = -1 },
		"too many more":   func(c *Complaint) { c.More = mostBesides + 1 },
		"a peer's lease":  func(c *Complaint) { c.Peers[3].Lease = "\x1b[2J" },
		"a peer's node":   func(c *Complaint) { c.Peers[3].Node = "\n" },
		"a family":        func(c *Complaint) { c.Peers[3].Family = "ipx" },
		"a way":           func(c *Complaint) { c.Peers[3].Way = "pigeon" },
		"a state":         func(c *Complaint) { c.Peers[3].State = "well" },
		"a size":          func(c *Complaint) { c.Peers[3].Size = -1 },
		"a full size":     func(c *Complaint) { c.Peers[3].Full = mostPacket + 1 },
		"a year":          func(c *Complaint) { c.Time = time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		c := badComplaint()
		spoil(&c)
		if value, err := c.Encode(); err == nil {
			t.Errorf("%s: written as %s", name, value)
		}
	}
	c := badComplaint()
	value, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing":   "",
		"no object": "[]",
		"half":      value[:len(value)/2],
		"too long":  value + strings.Repeat(" ", MaxComplaint),
		"a state":   strings.Replace(value, PeerUnreachable, "\x1b[2J", 1),
		"a number":  strings.Replace(value, "65535", "1e99", 1),
		"another's": strings.Replace(value, c.Node, "other", 1),
	} {
		if got, err := ParseComplaint(c.Node, []byte(text)); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

func TestComplaintSays(t *testing.T) {
	c, none := badComplaint(), (*Complaint)(nil)
	later := badComplaint()
	later.Time = later.Time.Add(time.Hour)
	later.Peers[0].Since = later.Peers[0].Since.UTC()
	if !c.Says(&later) || !none.Says(nil) || c.Says(nil) || none.Says(&c) {
		t.Error("when it was said counts, or whether it was does not")
	}
	for name, change := range map[string]func(*Complaint){
		"node":  func(c *Complaint) { c.Node = "other" },
		"lease": func(c *Complaint) { c.Lease = "10.5.1.0-24" },
		"more":  func(c *Complaint) { c.More-- },
		"peers": func(c *Complaint) { c.Peers = c.Peers[1:] },
		"size":  func(c *Complaint) { c.Peers[3].Size-- },
		"since": func(c *Complaint) { c.Peers[3].Since = c.Peers[3].Since.Add(time.Second) },
	} {
		other := badComplaint()
		change(&other)
		if c.Says(&other) {
			t.Errorf("another %s makes no difference", name)
		}
	}
}
