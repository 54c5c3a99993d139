package kernel

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/nftables"
	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ruleset is the connection to nf_tables, opened when it is first used and again after an error, which may have left
// answers in it. As long as it is open, its port tells our own changes from others in Watch.
type ruleset struct {
	conn   *nftables.Conn
	socket *nfnetlink.Conn
	dumps  *socket // for long lists
	port   atomic.Uint32
	last   nftReading
}

// use calls fn with a connection inside the namespace of k.
func (r *ruleset) use(k *Kernel, fn func(*nftables.Conn) error) error {
	if r.conn == nil {
		if err := k.inside(r.open); err != nil {
			return fmt.Errorf("open nf_tables: %w", errors.Join(err, r.close()))
		}
	}
	// The library waits for one answer to each message, the kernel sometimes gives only one in all.
	if err := r.socket.SetDeadline(time.Now().Add(answerTimeout * time.Second)); err != nil {
		return err
	}
	if err := fn(r.conn); err != nil {
		return errors.Join(err, r.close())
	}
	return nil
}

func (r *ruleset) open() error {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *nfnetlink.Conn) error {
		r.socket = c
		return nil
	}))
	if err != nil {
		return err
	}
	r.conn = conn
	if r.dumps, err = dial(unix.NETLINK_NETFILTER); err != nil {
		return err
	}
	port, err := fileOf(r.socket, func(fd int) (uint32, error) {
		growBuffers(fd)
		return portOf(fd)
	})
	r.port.Store(port)
	return err
}

func (r *ruleset) close() error {
	if r.conn == nil {
		return nil
	}
	conn, dumps := r.conn, r.dumps
	r.conn, r.socket, r.dumps = nil, nil, nil
	err := conn.CloseLasting()
	if dumps != nil {
		err = errors.Join(err, dumps.close())
	}
	return err
}

// fileOf calls fn with the descriptor of c.
func fileOf[T any](c syscall.Conn, fn func(fd int) (T, error)) (v T, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return v, err
	}
	if controlErr := raw.Control(func(fd uintptr) { v, err = fn(int(fd)) }); controlErr != nil {
		return v, controlErr
	}
	return v, err
}

// unsupported reports whether err means that the kernel lacks nf_tables, or netfilter altogether.
func unsupported(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT)
}
