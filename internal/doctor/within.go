package doctor

import (
	"encoding/json"
	"fmt"
)

// Within returns the facts as JSON of so many bytes at most. What there is much of is cut in half until they fit, and that is told: the last
// containers first, then routes of others, then troubles.
func (f Facts) Within(most int) ([]byte, error) {
	f.Unread = append([]Unread(nil), f.Unread...)
	if f.Status != nil {
		status := *f.Status
		f.Status = &status
	}
	told := map[Part]bool{}
	leave := func(part Part) {
		if !told[part] {
			told[part] = true
			f.Unread = append(f.Unread, Unread{part, "there are too many to tell of all"})
		}
	}
	for {
		text, err := json.Marshal(f)
		switch {
		case err != nil:
			return nil, fmt.Errorf("encode facts: %w", err)
		case len(text) <= most:
			return text, nil
		case len(f.Containers) > 0:
			f.Containers = f.Containers[:len(f.Containers)/2]
			f.Links = f.without(RolePort)
			leave(PartContainers)
		case len(f.Others) > 0:
			f.Others = f.Others[:len(f.Others)/2]
			leave(PartRoutes)
		case f.Status != nil && len(f.Status.Troubles) > 0:
			f.Status.Troubles = f.Status.Troubles[:len(f.Status.Troubles)/2]
			leave(PartStatus)
		default:
			return nil, fmt.Errorf("facts take %d bytes, may take %d", len(text), most)
		}
	}
}

// without lists the links but those with a role.
func (f Facts) without(role Role) (links []Link) {
	for _, l := range f.Links {
		if l.Role != role {
			links = append(links, l)
		}
	}
	return links
}
