//go:build linux

package traffic

import (
	"sync"

	"golang.org/x/sys/unix"
)

// sockets are those that threads may be waiting at. Each thread closes its own.
type sockets struct {
	mu   sync.Mutex
	fds  map[int]bool
	over bool
}

// add reports false when all is over; the socket is then closed.
func (s *sockets) add(fd int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		unix.Close(fd)
		return false
	}
	if s.fds == nil {
		s.fds = map[int]bool{}
	}
	s.fds[fd] = true
	return true
}

// close closes one socket.
func (s *sockets) close(fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.fds, fd)
	unix.Close(fd)
}

// end wakes all threads, whose sockets have nothing more to say.
func (s *sockets) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for fd := range s.fds {
		// Of a UDP socket that is not connected it fails, and wakes its reader all the same.
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	}
}

func (s *sockets) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}
