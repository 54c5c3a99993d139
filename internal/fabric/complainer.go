package fabric

import (
	"context"
	"errors"
	"time"

	"tulle/internal/probe"
	"tulle/subnet"
)

// How often what the store holds of this host's complaint is changed, and how long that may take. A change that fails counts: it may have taken effect.
const (
	complaintsEvery = time.Minute
	complaintsWait  = 15 * time.Second
)

// Complainer tells the hosts of a network through the store which peers packets of this host do not arrive at, and that they do again. Where all is well,
// nothing is written.
type Complainer struct {
	fabric *Fabric
	told   *subnet.Complaint // as the store has it, by what is known here; nil: nothing
	next   time.Time         // before that nothing else is told
	look   time.Time         // when the same is told again: the store may hold something else, as it may after a start
}

// Complainer returns what has told nothing yet.
func (f *Fabric) Complainer() *Complainer {
	return &Complainer{fabric: f, look: time.Now().Add(complaintsEvery)}
}

// Step tells what is wrong with the peers of the network, if that is due. bad has all that is not well. It may wait for the store.
func (c *Complainer) Step(ctx context.Context, g *Probing, bad probe.Bad) {
	now := time.Now()
	want := complaint(g, bad, now)
	same := want.Says(c.told)
	if now.Before(c.next) || same && now.Before(c.look) || !c.fabric.Holds() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, complaintsWait)
	defer cancel()
	err := c.fabric.keeper.complain(ctx, want)
	c.look = time.Now().Add(complaintsEvery)
	if want != nil || c.told != nil || err != nil {
		c.next = c.look
	}
	if err != nil {
		c.fabric.cfg.Log.Debug("what is wrong with peers is not told", "err", err)
		return
	}
	c.told = want
}

var errNoLease = errors.New("this host holds no lease")
