package fastpath

import "os"

// conntrackFile says whether conntrack takes packets for invalid that are outside the window of TCP as it knows it (nf_conntrack-sysctl).
const conntrackFile = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal"

// conntrackIsStrict reports whether conntrack would take later packets of a connection for invalid, of which it sees only some.
func conntrackIsStrict() bool {
	text, err := os.ReadFile(conntrackFile)
	return err == nil && len(text) > 0 && text[0] == '0'
}
