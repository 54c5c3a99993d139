package subnet

import "fmt"

// maxID is the length of the longest id of a host or of a run of it, in bytes: that of the longest host name of Linux.
const maxID = 64

// CheckNodeID says what is wrong with a node id. The same is true of an instance.
func CheckNodeID(id string) error {
	if !soundID(id) {
		return fmt.Errorf("node id %.64q: use up to %d letters, digits, dots, dashes and underscores, the first a letter or digit", id, maxID)
	}
	return nil
}

// CheckIdentity says what is wrong with the node id or the instance of a claim: no host would read a lease with it.
func (c Claim) CheckIdentity() error {
	if err := CheckNodeID(c.Attrs.Node); err != nil {
		return err
	}
	if c.Attrs.Instance != "" && !soundID(c.Attrs.Instance) {
		return fmt.Errorf("instance %.64q: what holds for a node id holds for it", c.Attrs.Instance)
	}
	return nil
}

func soundID(id string) bool {
	if id == "" || len(id) > maxID {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}
