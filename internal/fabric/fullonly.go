package fabric

import (
	"fmt"
	"slices"
	"time"

	"tulle/internal/trouble"
	"tulle/subnet"
)

// Obstacle names why a full pass leaves no baseline. It never changes its meaning.
type Obstacle string

// The obstacles.
const (
	PassUnfinished   Obstacle = "pass-unfinished"
	FoundFault       Obstacle = "fault"
	FileUnwritten    Obstacle = "file-unwritable"
	ViewCached       Obstacle = "view-cached"
	LossHeldBack     Obstacle = "sudden-loss"
	UplinkLacking    Obstacle = "uplink-lacking"
	LeaseNotHeld     Obstacle = "lease-not-held"
	LeaseUnpublished Obstacle = "lease-unpublished"
	LeaseOutranked   Obstacle = "lease-outranked"
	LeaseUnfit       Obstacle = "lease-unfit"
	ForeignRoute     Obstacle = "foreign-route"
)

// Obstacles lists all.
func Obstacles() []Obstacle {
	return []Obstacle{PassUnfinished, FoundFault, FileUnwritten, ViewCached, LossHeldBack, UplinkLacking, LeaseNotHeld, LeaseUnpublished, LeaseOutranked, LeaseUnfit, ForeignRoute}
}

// FullOnly tells that every change takes a full pass, and why.
type FullOnly struct {
	Code  Obstacle  `json:"code"`
	Text  string    `json:"text"`
	Since time.Time `json:"since"`
}

// obstacle finds out why no incremental pass may go on from a pass that has converged; nil if one may.
func (p *Pass) obstacle(sound bool) *FullOnly {
	v, ownKey := &p.facts, subnet.KeyOf(p.facts.self.Subnets)
	switch {
	case !sound:
		return &FullOnly{Code: FoundFault, Text: "Tulle contradicts itself: see the trouble " + string(trouble.Fault)}
	case p.unwritten != nil:
		return &FullOnly{Code: FileUnwritten, Text: p.unwritten.Error()}
	case v.set.cached:
		return &FullOnly{Code: ViewCached, Text: "the store has not shown its leases yet"}
	case p.fabric.views.holdback.Reason() != "":
		return &FullOnly{Code: LossHeldBack, Text: p.fabric.views.holdback.Reason()}
	case v.lacking != nil:
		return &FullOnly{Code: UplinkLacking, Text: v.lacking.Error()}
	case v.notHeld != nil:
		return &FullOnly{Code: LeaseNotHeld, Text: v.notHeld.Error()}
	case v.unpublished != nil:
		return &FullOnly{Code: LeaseUnpublished, Text: v.unpublished.Error()}
	case v.outranked != nil:
		return &FullOnly{Code: LeaseOutranked, Text: v.outranked.Error()}
	}
	if i := slices.IndexFunc(p.Unserved, func(u subnet.Problem) bool { return u.Key == ownKey }); i >= 0 {
		return &FullOnly{Code: LeaseUnfit, Text: p.Unserved[i].Reason}
	}
	if all := v.snap.Foreign; len(all) > 0 {
		return &FullOnly{Code: ForeignRoute, Text: fmt.Sprintf("%d routes of others lead into the network by a gateway, such as %s via %s", len(all), all[0].Dst, all[0].Via)}
	}
	return nil
}

// tellFullOnly puts into the status why the pass has left no baseline, and since when that lasts.
func (p *Pass) tellFullOnly() {
	if last := p.fabric.fullOnly; p.full != nil {
		p.full.Since = time.Now()
		if last != nil && last.Code == p.full.Code {
			p.full.Since = last.Since
		}
	}
	p.fabric.fullOnly, p.Status.FullOnly = p.full, p.full
}
