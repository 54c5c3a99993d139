package fastpath

import (
	"time"

	"github.com/vishvananda/netlink"
)

// Where churn is high, looks at links are farther apart, and a container has to be there at two of them to get the programs: attaching waits for the kernel's lock of
// all links, and most of such containers are gone soon.
const (
	churnPause = time.Second
	highChurn  = 3 // containers
)

// churn counts containers that come and go while links do not rest.
type churn struct {
	fresh map[int]bool // that came, by index of the link
	gone  int          // of these
}

// begin forgets what was before links rested.
func (c *churn) begin() { *c = churn{fresh: map[int]bool{}} }

func (c *churn) came(link int) {
	if c.fresh != nil {
		c.fresh[link] = true
	}
}

// look takes in which links there are.
func (c *churn) look(links []netlink.Link) {
	if len(c.fresh) == 0 {
		return
	}
	there := make(map[int]bool, len(links))
	for _, l := range links {
		there[l.Attrs().Index] = true
	}
	for link := range c.fresh {
		if !there[link] {
			c.gone++
			delete(c.fresh, link)
		}
	}
}

func (c *churn) high() bool { return c.gone >= highChurn }

// pause is for how long links are left alone after a look at them.
func (c *churn) pause() time.Duration {
	if c.high() {
		return churnPause
	}
	return lookPause
}
