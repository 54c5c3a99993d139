// Package doctor finds the first broken link between containers from what hosts say of themselves: facts in, findings with their fixes out.
package doctor

import (
	"cmp"
	"net/netip"
	"slices"

	"tulle/internal/trouble"
)

// Sureness is how much a finding is to be believed.
type Sureness string

// How sure a finding is.
const (
	Certain Sureness = "certain" // it is wrong
	Likely  Sureness = "likely"  // it may be so for a reason, or the fault may be another
)

// Finding is one thing that is wrong.
type Finding struct {
	Code     trouble.Code     `json:"code"`
	Severity trouble.Severity `json:"severity"`
	Host     string           `json:"host"`              // node id
	Network  string           `json:"network,omitempty"` // of a host with several
	Subject  string           `json:"subject,omitempty"`
	Text     string           `json:"text"`
	Fix      []string         `json:"fix,omitempty"`    // commands for a shell on Host, which mend it
	Undo     []string         `json:"undo,omitempty"`   // and those that take it back
	Remedy   string           `json:"remedy,omitempty"` // what to do where no command is known
	Safe     bool             `json:"safe,omitempty"`   // doctor may carry Fix out
	Sure     Sureness         `json:"sure"`
	Follows  []Finding        `json:"follows,omitempty"` // its consequences
}

// Untold is a check that could not be made.
type Untold struct {
	Code trouble.Code `json:"code"`
	Host string       `json:"host"`
	Why  string       `json:"why"`
}

// End is one end of the chain: a container, or a host.
type End struct {
	Name      string     `json:"name"` // as it was named
	Host      string     `json:"host,omitempty"`
	Container bool       `json:"container,omitempty"`
	Addr      netip.Addr `json:"address,omitzero"`
}

// Case is what is to be looked at: a host, or the chain between A and B, which lies on one host or two.
type Case struct {
	Here  Facts
	There *Facts // of the other host; nil: there is none, or it gave no answer
	Why   string // why There is missing, where there should be one
	A, B  End    // A is on the host Here
	Lease string // of the host Here, by its key
	Peer  *Peer  // the other host, where B is on another; nil: there is none
}

// Hosts lists the facts of each host of the case.
func (c Case) Hosts() []Facts {
	if c.There == nil {
		return []Facts{c.Here}
	}
	return []Facts{c.Here, *c.There}
}

// Report is what came of the checks.
type Report struct {
	Findings []Finding `json:"findings"`         // the first broken link first
	Advice   []Finding `json:"advice,omitempty"` // what could be better, and keeps no packets
	Untold   []Untold  `json:"untold,omitempty"` // what could not be checked
}

// Healthy reports whether nothing was found wrong, and everything could be checked that has to be.
func (r Report) Healthy() bool { return len(r.Findings) == 0 }

// Check looks for one kind of fault.
type Check struct {
	Code   trouble.Code
	Title  string               // what is well if it finds nothing
	Reads  []Part               // of the facts; if one of them was not to be had, the check is not told
	Brings []trouble.Code       // what follows from it, and is folded below it
	Find   func(Case) []Finding // pure; nil: tulled's status tells
}

// Diagnose makes all checks, in causal order.
func Diagnose(c Case) Report {
	report := Report{Findings: []Finding{}}
	for _, check := range checks {
		found := check.find(c)
		for i := range found {
			found[i] = check.complete(found[i])
		}
		found = slices.DeleteFunc(found, func(f Finding) bool { return !c.concerns(f) })
		for _, f := range found {
			if f.Severity == trouble.Advice {
				report.Advice = append(report.Advice, f)
			} else {
				report.Findings = append(report.Findings, f)
			}
		}
		report.Untold = append(report.Untold, check.untold(c)...)
	}
	report.Findings = fold(report.Findings)
	return report
}

// find makes the check.
func (check Check) find(c Case) []Finding {
	if check.Find != nil {
		return check.Find(c)
	}
	return onEach(told(check.Code))(c)
}

// complete gives a finding what its code says.
func (check Check) complete(f Finding) Finding {
	kind := trouble.New(check.Code, "", "")
	f.Code = check.Code
	f.Severity = cmp.Or(f.Severity, kind.Severity)
	f.Sure = cmp.Or(f.Sure, Certain)
	if f.Remedy == "" && len(f.Fix) == 0 {
		f.Remedy = kind.Remedy
	}
	return f
}

// untold says on which hosts the check could not be made.
func (check Check) untold(c Case) (list []Untold) {
	for _, h := range c.Hosts() {
		if h.Status == nil && slices.Contains(check.Reads, PartStatus) && check.Code != trouble.DaemonStopped && !unread(h, PartStatus) {
			list = append(list, Untold{check.Code, h.Node, string(PartStatus) + ": it does not answer"})
			continue
		}
		for _, u := range h.Unread {
			if slices.Contains(check.Reads, u.Part) {
				list = append(list, Untold{check.Code, h.Node, string(u.Part) + ": " + u.Why})
				break
			}
		}
	}
	return list
}

// fold puts what follows from an earlier finding below that, and what the same commands mend: they do so once.
func fold(all []Finding) []Finding {
	top := []Finding{}
	for _, f := range all {
		cause := slices.IndexFunc(top, func(t Finding) bool { return t.Code != f.Code && brings(t.Code, f.Code) || alike(t, f) })
		if cause < 0 {
			top = append(top, f)
			continue
		}
		top[cause].Follows = append(top[cause].Follows, f)
	}
	return top
}

// alike reports whether two findings of one kind come of one fault: the same commands mend both.
func alike(a, b Finding) bool {
	return a.Code == b.Code && a.Host == b.Host && len(a.Fix) > 0 && slices.Equal(a.Fix, b.Fix) && !a.Safe
}

func brings(cause, code trouble.Code) bool {
	i := slices.IndexFunc(checks, func(c Check) bool { return c.Code == cause })
	return i >= 0 && slices.Contains(checks[i].Brings, code)
}
