package ip

// Settable returns plan without the settings that cannot be set, and these: those that s or refused says cannot be written, and
// optional ones that do not exist, as those of IPv6 in a kernel without it, or of connection tracking before that is loaded.
func (s Snapshot) Settable(plan Plan, refused map[string]bool) (settable Plan, unset []Op) {
	links := map[string]bool{}
	for _, l := range s.Owned.Links {
		links[l.Name] = true
	}
	return without(plan, func(op Op) bool {
		want, ok := op.New.(Sysctl)
		vain := ok && (s.Fixed[want.Key] || refused[want.Key] || op.Verb == Add && want.Optional && (want.Link == "" || links[want.Link]))
		if vain {
			unset = append(unset, op)
		}
		return vain
	}), unset
}

// Refused splits es into the settings that could not be written, by their keys, and the rest.
func (es OpErrors) Refused() (settings map[string]bool, rest OpErrors) {
	settings = map[string]bool{}
	rest = without(es, func(e OpError) bool {
		setting, ok := e.Op.New.(Sysctl)
		if ok {
			settings[setting.Key] = true
		}
		return ok
	})
	return settings, rest
}
