package fastpath

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"tulle/ip"
)

// refusals are the names of the reasons why packets may not be fast, in the order of enum refusal.
func refusals() []string {
	return []string{"", "protocol", "fragment", "options", "ttl", "handshake", "strict", "helper", "excluded", "size", "sender"}
}

// State says how the fast path stands.
func (f *FastPath) State() ip.FastPathState {
	f.mu.Lock()
	st := f.state
	st.Raised = maps.Clone(f.raised)
	st.Paused = max(time.Until(f.until), 0)
	f.mu.Unlock()
	var all []programsCount
	if err := f.objects.Counters.Lookup(uint32(0), &all); err != nil {
		st.Failed = fmt.Sprintf("read counters: %v", err)
		return st
	}
	st.Refused = map[string]uint64{}
	for _, c := range all {
		st.Out.Add(ip.FastTraffic{FastPackets: c.Out.FastPackets, FastBytes: c.Out.FastBytes, SlowPackets: c.Out.SlowPackets, SlowBytes: c.Out.SlowBytes})
		st.In.Add(ip.FastTraffic{FastPackets: c.In.FastPackets, FastBytes: c.In.FastBytes, SlowPackets: c.In.SlowPackets, SlowBytes: c.In.SlowBytes})
		st.Admitted += c.Admitted
		for i, name := range refusals() {
			if c.Refused[i] > 0 {
				st.Refused[name] += c.Refused[i]
			}
		}
	}
	return st
}

// Flows lists the flows that are fast: none while that is switched off.
func (f *FastPath) Flows() ([]ip.FastFlow, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil { // as bpf_ktime_get_ns(7) has it
		return nil, fmt.Errorf("list flows: %w", err)
	}
	f.mu.Lock()
	epoch := f.now
	f.mu.Unlock()
	var set programsSetting
	if err := f.objects.Settings.Lookup(uint32(0), &set); err != nil {
		return nil, fmt.Errorf("list flows: read settings: %w", err)
	}
	var found []ip.FastFlow
	hosts, names := map[uint16]netip.Addr{}, map[uint32]string{}
	err := readAll(f.objects.Flows, func(key programsFlow, a programsAdmission) bool {
		age := max(time.Duration(now.Nano()-int64(a.Seen)), 0) // it may have been seen since
		if a.Epoch != epoch || age >= time.Duration(set.Life) {
			return true
		}
		host, known := hosts[a.Peer]
		if !known {
			var p programsPeer
			if err := f.objects.Peers.Lookup(uint32(a.Peer), &p); err == nil && p.Serial == a.Serial {
				host = addrOf(p.Remote.Word)
			}
			hosts[a.Peer] = host
		}
		found = append(found, ip.FastFlow{
			In: key.Direction == 2, Protocol: key.Protocol,
			Src: netip.AddrPortFrom(addrOf(key.Src.Word), big(key.Sport)), Dst: netip.AddrPortFrom(addrOf(key.Dst.Word), big(key.Dport)),
			Peer: host, Link: f.linkName(names, a.Link), Packets: a.Packets, Bytes: a.Bytes, Age: age,
		})
		return true
	})
	if err != nil {
		return found, fmt.Errorf("list flows: %w", err)
	}
	return found, nil
}

// countFlows counts those that there is room in use for.
func (f *FastPath) countFlows() error {
	n := 0
	if err := readAll(f.objects.Flows, func(programsFlow, programsAdmission) bool { n++; return true }); err != nil {
		return fmt.Errorf("count flows: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.Fill = n
	return nil
}

// linkName looks a link up; one that is gone has none.
func (f *FastPath) linkName(known map[uint32]string, index uint32) string {
	name, ok := known[index]
	if !ok {
		_ = f.ns.Do(func() error {
			if i, err := net.InterfaceByIndex(int(index)); err == nil {
				name = i.Name
			}
			return nil
		})
		known[index] = name
	}
	return name
}
