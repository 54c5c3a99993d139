package agent

import (
	"fmt"
	"strings"

	"tulle/internal/invariant"
	"tulle/internal/trouble"
	"tulle/ip"
)

// findings are what a pass finds wrong with the host beside the error that keeps it from being ready.
type findings struct {
	settings      []string          // that would help, and cannot be set here
	contested     []string          // what others undo again and again, and who
	deviceFilters []ip.DeviceFilter // on Tulle's links and the uplink, by others
	violations    []invariant.Violation
}

// sumUp says how the host stands after a pass, from how its networks do: err is the host's own.
func (a *Agent) sumUp(st *Status, err error) {
	if err != nil {
		st.host = err.Error()
	}
	st.conclude()
	list := &st.Troubles
	list.Add(trouble.Of(err)...)
	for _, n := range st.Networks {
		list.Join(n.Troubles)
	}
	for _, text := range st.found.settings {
		key, _, _ := strings.Cut(text, " ")
		list.Add(trouble.New(trouble.SettingAdvised, key, text))
	}
	list.Add(a.fast.troubles(a.fast.status())...)
	if a.cfg.NewNode {
		list.Add(trouble.New(trouble.NodeRandom, a.cfg.Host.Node, a.randomNode()))
	}
	for _, what := range st.found.contested {
		_, object, _ := strings.Cut(what, ": ")
		list.Add(trouble.New(trouble.KernelContested, object, what))
	}
	for _, on := range st.found.deviceFilters {
		code := trouble.DeviceFiltered
		if on.Uplink {
			code = trouble.UplinkFiltered
		}
		list.Add(trouble.New(code, on.Link, on.String()))
	}
	for _, v := range st.found.violations {
		list.Add(trouble.New(trouble.Fault, v.Invariant, v.String()))
	}
	*list = a.probes.told(*list)
}

// conclude derives from the networks whether the host is ready, and why not.
func (st *Status) conclude() {
	st.Ready, st.Reason, st.Degraded = st.host == "", "", ""
	say := func(all *string, name, text string) {
		if text == "" {
			return
		}
		if name != "" {
			text = fmt.Sprintf("network %s: %s", name, text)
		}
		if *all != "" {
			*all += "\n"
		}
		*all += text
	}
	for _, n := range st.Networks {
		st.Ready = st.Ready && n.Ready
		say(&st.Reason, n.Name, n.Reason)
		say(&st.Degraded, n.Name, n.Degraded)
	}
	say(&st.Reason, "", st.host)
}
