package kernel

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"tulle/ip"
)

// loopbackIndex is that of lo in every namespace (LOOPBACK_IFINDEX in net/flow.h of the kernel).
const loopbackIndex = 1

// readPaths asks for the route to each address. What the kernel has no answer for is left out.
func (rd *reading) readPaths(k *Kernel) error {
	questions := make([]ip.Question, len(rd.scope.Paths))
	for i, addr := range rd.scope.Paths {
		questions[i].Dst = addr
	}
	answers, _, err := k.hostLinks.ask(k.route, rd.names, rd.noARP, questions)
	rd.Paths = make(map[netip.Addr]ip.Path, len(answers))
	for i, a := range answers {
		if a.Leads() {
			rd.Paths[rd.scope.Paths[i]] = a.Path
		}
	}
	return err
}

// ask asks what would become of packets. It returns whether all links that are asked for and answered are among the names, and adds those that packets are
// sent by to leads.
func ask(s *socket, names map[uint32]string, noARP map[string]bool, questions []ip.Question, leads map[uint32]bool) (answers []ip.Answer, known bool, err error) {
	answers, known, err = askFor(s, names, noARP, questions, leads, unix.RTM_F_FIB_MATCH)
	var again []int // a route by a nexthop object may not name its interface, but a packet has one
	var unnamed []ip.Question
	for i, a := range answers {
		if a.Kind == ip.Unicast && a.Link == "" {
			again, unnamed = append(again, i), append(unnamed, questions[i])
		}
	}
	if err != nil || len(again) == 0 {
		return answers, known, err
	}
	second, known, err := askFor(s, names, noARP, unnamed, leads, 0)
	for n, a := range second {
		answers[again[n]] = a
	}
	return answers, known, err
}

// askFor asks with more flags for the questions about whole routes: without one the source that the kernel chooses is asked for, which the route itself does not say.
func askFor(s *socket, names map[uint32]string, noARP map[string]bool, questions []ip.Question, leads map[uint32]bool, more uint32) (answers []ip.Answer, known bool, err error) {
	answers, known = make([]ip.Answer, len(questions)), true
	indexes := map[string]uint32{}
	for _, q := range questions {
		if q.In != "" && indexes[q.In] == 0 {
			index, ok := indexOf(names, q.In)
			indexes[q.In], known = index, known && ok
		}
	}
	var b batch
	some := answers
	for asked := range slices.Chunk(questions, maxBatch/2) { // an answer is twice as long as an error
		b.reset()
		for _, q := range asked {
			flags := uint32(unix.RTM_F_LOOKUP_TABLE)
			if q.Src.IsValid() && !q.Taken {
				flags |= more
			}
			encodeQuestion(&b, q, indexes[q.In], flags)
		}
		err := s.exchange(&b, func(i int, m message, err error) {
			a, hops := parseAnswer(m, err, asked[i])
			for n, h := range hops {
				link, ok := names[h.link]
				known = known && ok
				if h.link != 0 {
					leads[h.link] = true
				}
				switch first := hops[0]; {
				case n == 0:
					a.Link, a.NoARP = link, noARP[link]
				case h.link != first.link || h.via != first.via && a.Also == (ip.Path{}):
					a.Also = ip.Path{Link: link, Gateway: h.via}
				}
			}
			some[i] = a
		})
		if err != nil {
			return nil, known, err
		}
		some = some[len(asked):]
	}
	return answers, known, nil
}

func indexOf(names map[uint32]string, link string) (uint32, bool) {
	for index, name := range names {
		if name == link {
			return index, true
		}
	}
	return ^uint32(0), false // which no link has
}

func encodeQuestion(b *batch, q ip.Question, in, flags uint32) {
	header := []byte{addressFamily(ip.FamilyOf(q.Dst)), uint8(q.Dst.BitLen()), 0, q.TOS, 0, 0, 0, 0}
	if q.Src.IsValid() {
		header[2] = uint8(q.Src.BitLen())
	}
	b.begin(unix.RTM_GETROUTE, 0, binary.NativeEndian.AppendUint32(header, flags)...)
	b.attrAddr(unix.RTA_DST, q.Dst)
	if q.Src.IsValid() {
		b.attrAddr(unix.RTA_SRC, q.Src)
	}
	if q.In != "" {
		b.attrUint32(unix.RTA_IIF, in)
	}
	if q.Mark != 0 {
		b.attrUint32(unix.RTA_MARK, q.Mark)
	}
	if q.Protocol != 0 { // the kernel takes UDP where there are ports
		b.attr(unix.RTA_IP_PROTO, q.Protocol)
	}
	if q.SrcPort != 0 {
		b.attr(unix.RTA_SPORT, binary.BigEndian.AppendUint16(nil, q.SrcPort)...)
	}
	if q.DstPort != 0 {
		b.attr(unix.RTA_DPORT, binary.BigEndian.AppendUint16(nil, q.DstPort)...)
	}
}

// parseAnswer returns the next hops apart, if the packet gets somewhere.
func parseAnswer(m message, err error, q ip.Question) (a ip.Answer, hops []hop) {
	if err != nil {
		return ip.Answer{Kind: routeTypeOf(err)}, nil
	}
	r, ok := parseRoute(m)
	if !ok {
		return a, nil
	}
	switch r.typ {
	case unix.RTN_UNICAST:
		a.Kind, a.Table = ip.Unicast, r.table
	case unix.RTN_LOCAL:
		a.Kind, r.hop.link = ip.Local, loopbackIndex // IPv6 names the interface that has the address
	case unix.RTN_BLACKHOLE:
		a.Kind = ip.Blackhole
	case unix.RTN_UNREACHABLE:
		a.Kind = ip.Unreachable
	case unix.RTN_PROHIBIT:
		a.Kind = ip.Prohibit
	}
	if !a.Leads() {
		return a, nil
	}
	hops = slices.DeleteFunc(r.hops, func(h hop) bool { return h.dead })
	if len(hops) == 0 {
		hops = []hop{r.hop}
	}
	a.Gateway = hops[0].via
	if q.Src.IsValid() {
		a.Single = !q.Taken && r.typ == unix.RTN_UNICAST && r.dst.IsSingleIP()
	} else {
		a.Source = r.source
	}
	return a, hops
}

// routeTypeOf is what an error says of the packet (fib_props in net/ipv4/fib_semantics.c). An IPv4 packet that comes in where its source is not
// expected gets the same error as one for a blackhole, or EXDEV.
func routeTypeOf(err error) ip.RouteType {
	switch {
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EXDEV):
		return ip.Blackhole
	case errors.Is(err, unix.EHOSTUNREACH):
		return ip.Unreachable
	case errors.Is(err, unix.EACCES):
		return ip.Prohibit
	case errors.Is(err, unix.ENETUNREACH):
		return ip.Unrouted
	}
	return ""
}
