//go:build linux

package notify

import "golang.org/x/sys/unix"

// Shrink leaves room for a few notifications.
func (s *Socket) Shrink() error {
	return unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
}
