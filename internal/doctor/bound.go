package doctor

// Bounds on what another host tells of, far above what one has: checks compare much of it with much else.
const (
	maxLinks    = 256
	maxNetworks = 16
	maxSettings = 256
	maxCounters = 256
	maxListed   = 64 // of what is smaller, in each place
)

// Bound cuts what another host says to what one of its kind says at most, and tells of it: an answer may be anything, and what checks cost grows with it.
func (f *Facts) Bound() {
	told := map[Part]bool{}
	if len(f.Unread) > maxListed {
		f.Unread = f.Unread[:maxListed]
	}
	cut := func(part Part, whole bool) {
		if !whole && !told[part] {
			told[part] = true
			f.Unread = append(f.Unread, Unread{part, "there is more of it than a host tells of"})
		}
	}
	cut(PartLinks, bound(&f.Links, maxLinks))
	for i := range f.Links {
		cut(PartLinks, bound(&f.Links[i].Addrs, maxListed))
	}
	cut(PartSettings, bound(&f.Settings, maxSettings))
	cut(PartRoutes, bound(&f.Others, MaxOthers))
	cut(PartFilters, bound(&f.Filters, maxListed))
	cut(PartCounters, bound(&f.Counters, maxCounters))
	cut(PartFile, bound(&f.File.Subnets, maxListed))
	cut(PartResolvers, bound(&f.Resolvers, maxListed))
	cut(PartContainers, bound(&f.Containers, MaxContainers))
	for i := range f.Containers {
		cut(PartContainers, f.Containers[i].bound())
	}
	if f.Container != nil {
		cut(PartContainers, f.Container.bound())
	}
	for _, s := range []*Status{f.Status, f.Last} {
		cut(PartStatus, s == nil || s.bound())
	}
	if f.Docker != nil {
		cut(PartDocker, bound(&f.Docker.Networks, maxListed))
		for i := range f.Docker.Networks {
			cut(PartDocker, bound(&f.Docker.Networks[i].Subnets, maxListed))
		}
	}
	if c := f.CNI; c != nil {
		whole := bound(&c.Missing, maxListed)
		whole = bound(&c.Elsewhere, maxListed) && whole
		cut(PartCNI, bound(&c.Networks, maxListed) && whole)
		for i := range c.Networks {
			cut(PartCNI, bound(&c.Networks[i].Stale, maxListed))
		}
	}
	if t := f.Toward; t != nil {
		whole := bound(&t.Public, maxListed)
		cut(PartToward, bound(&t.Ways, maxListed) && whole)
	}
}

// bound cuts a list, and reports whether it is whole.
func bound[T any](list *[]T, most int) bool {
	if len(*list) <= most {
		return true
	}
	*list = (*list)[:most]
	return false
}

func (c *Container) bound() bool {
	whole := bound(&c.Addrs, maxListed)
	whole = bound(&c.Routes, MaxRoutes) && whole
	whole = bound(&c.Known, maxListed) && whole
	return bound(&c.Neighbors, maxListed) && whole
}

func (s *Status) bound() bool {
	whole := bound(&s.Troubles, MaxTroubles)
	whole = bound(&s.Networks, maxNetworks) && whole
	for i := range s.Networks {
		whole = bound(&s.Networks[i].Prefixes, 2) && whole // one in each family
		whole = bound(&s.Networks[i].Subnets, 2) && whole
	}
	if u := s.Uplink; u != nil {
		whole = bound(&u.Addrs, maxListed) && whole
		whole = bound(&u.Public, maxListed) && whole
	}
	return whole
}
