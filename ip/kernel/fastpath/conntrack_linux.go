package fastpath

import "golang.org/x/sys/unix"

// conntrackFile says whether conntrack takes packets for invalid that are outside the window of TCP as it knows it (nf_conntrack-sysctl).
const conntrackFile = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal"

// conntrackIsStrict reports whether conntrack would take later packets of a connection for invalid, of which it sees only some. It is asked with each look: the
// library would have the runtime poll the file.
func conntrackIsStrict() bool {
	fd, err := unix.Open(conntrackFile, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var text [1]byte
	n, err := unix.Read(fd, text[:])
	return err == nil && n == 1 && text[0] == '0'
}
