package web

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"tulle/internal/backends"
	"tulle/internal/bugreport"
	"tulle/internal/printable"
	"tulle/internal/trouble"
	"tulle/subnet"
)

// Bounds on what is shown, which others may have written.
const (
	mostConfig   = 16 << 10 // bytes
	mostProblems = 200
)

// config is the network configuration.
type config struct {
	Key      string          `json:"key"`
	Revision subnet.Revision `json:"revision"` // of the configuration that the leases are judged by; 0: there is none
	Text     string          `json:"text"`     // as it is stored
	Cut      bool            `json:"cut"`      // it is longer
	Problems []string        `json:"problems"`
}

// problem is something wrong, and what to do.
type problem struct {
	Code     string `json:"code"`
	Severity string `json:"severity"`
	Where    string `json:"where"` // the store, or this host
	Subject  string `json:"subject"`
	Text     string `json:"text"`
	Remedy   string `json:"remedy"`
}

// problems are the worst first.
type problems struct {
	All  []problem `json:"all"`
	More int       `json:"more"`
}

const (
	inStore = "store"
	onHost  = "this host"
)

func configOf(f facts) config {
	c := config{Key: cell(f.configKey), Problems: []string{}}
	if f.set.Network != nil {
		c.Revision = f.set.Network.Revision
	}
	for _, t := range configTroubles(f) {
		c.Problems = append(c.Problems, line(hide(t.Text)))
	}
	text := f.config
	var pretty bytes.Buffer
	if json.Indent(&pretty, bytes.TrimSpace(text), "", "  ") == nil {
		text = pretty.Bytes()
	}
	// What is hidden is found before the text is cut: half a secret would not be.
	text = bugreport.HideCredentials(text)
	if c.Cut = len(text) > mostConfig; c.Cut {
		text = text[:mostConfig]
	}
	c.Text = printable.JSON(strings.ToValidUTF8(string(text), "�"))
	return c
}

// configTroubles are those with the configuration that is stored.
func configTroubles(f facts) (ts []trouble.Trouble) {
	add := func(code trouble.Code, text string) {
		if !slices.ContainsFunc(ts, func(t trouble.Trouble) bool { return t.Text == text }) {
			ts = append(ts, trouble.New(code, f.configKey, text))
		}
	}
	switch {
	case f.config != nil:
		_, warnings, err := backends.Check(f.config)
		if err != nil {
			add(trouble.ConfigRefused, err.Error())
		}
		for _, w := range warnings {
			add(trouble.ConfigWarning, w)
		}
	case f.heard && f.storeErr == nil:
		add(trouble.ConfigMissing, "there is no network configuration")
	}
	return ts
}

func problemsOf(f facts, j judgment) problems {
	var l trouble.List
	if f.storeErr != nil {
		l.Add(trouble.New(trouble.StoreUnreachable, "", f.storeErr.Error()))
	}
	l.Add(configTroubles(f)...)
	for _, p := range slices.Concat(f.set.Problems, f.unreadable) {
		if p.Key != f.configKey {
			l.Add(trouble.New(trouble.KeyUnreadable, p.Key, p.Reason))
		}
	}
	l.AddUnlisted(trouble.KeyUnreadable, f.set.Unlisted)
	for _, lease := range f.set.Leases {
		for _, reason := range j.reasons[subnet.KeyOf(lease.Subnets)] {
			l.Add(trouble.New(trouble.PeerRefused, subnet.KeyOf(lease.Subnets), reason))
		}
	}
	var all []problem
	all = appendProblems(all, inStore, l)
	all = appendProblems(all, onHost, f.here.status.Troubles)
	slices.SortStableFunc(all, func(a, b problem) int {
		return cmp.Compare(severityOf(trouble.Severity(a.Severity)), severityOf(trouble.Severity(b.Severity)))
	})
	shown := all[:min(len(all), mostProblems)]
	return problems{append([]problem{}, shown...), len(all) - len(shown) + unlisted(l) + unlisted(f.here.status.Troubles)}
}

func appendProblems(all []problem, where string, l trouble.List) []problem {
	for _, t := range l.All {
		all = append(all, problem{
			Code: cell(string(t.Code)), Severity: cell(string(t.Severity)), Where: where,
			Subject: cell(hide(t.Subject)), Text: line(hide(t.Text)), Remedy: line(hide(t.Remedy)),
		})
	}
	return all
}

// unlisted counts the troubles that a list counts and does not name.
func unlisted(l trouble.List) (n int) {
	for code := range l.Count {
		n += l.Unlisted(code)
	}
	return n
}

// hide takes credentials out of what others say: of an error there may be an address with a password in it.
func hide(text string) string { return string(bugreport.HideCredentials([]byte(text))) }
