package subnet

import "iter"

// Changes walks two lists of leases, each in the order of CompareSubnets. For every subnet it yields the index of the lease in old and
// in now; -1 stands for none. Lists that share what is the same in both are walked fastest.
func Changes(old, now []*Lease) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		for i, j := 0, 0; i < len(old) || j < len(now); {
			order := 0
			switch {
			case i == len(old):
				order = 1
			case j == len(now):
				order = -1
			case old[i] != now[j]:
				order = CompareSubnets(old[i].Subnets, now[j].Subnets)
			}
			from, to := -1, -1
			if order <= 0 {
				from = i
				i++
			}
			if order >= 0 {
				to = j
				j++
			}
			if !yield(from, to) {
				return
			}
		}
	}
}
