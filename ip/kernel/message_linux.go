package kernel

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/notify"
)

// batch is a run of requests that travel together (netlink(7)).
type batch struct {
	buf    []byte
	starts []int
}

// begin starts a request; header is the fixed part of its type, to be followed by attributes.
func (b *batch) begin(typ, flags uint16, header ...byte) {
	b.starts = append(b.starts, len(b.buf))
	b.buf = append(b.buf, 0, 0, 0, 0) // the length, see seal
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, unix.NLM_F_REQUEST|flags)
	b.buf = append(b.buf, 0, 0, 0, 0, 0, 0, 0, 0) // the sequence number, see seal, and the port, which the kernel fills in
	b.buf = append(b.buf, header...)
	b.pad()
}

// attr adds an attribute to the request begun last.
func (b *batch) attr(typ uint16, value ...byte) {
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(unix.SizeofRtAttr+len(value)))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
	b.buf = append(b.buf, value...)
	b.pad()
}

func (b *batch) attrUint32(typ uint16, value uint32) {
	b.attr(typ, binary.NativeEndian.AppendUint32(nil, value)...)
}

func (b *batch) attrAddr(typ uint16, addr netip.Addr) { b.attr(typ, addr.AsSlice()...) }

func (b *batch) pad() { b.buf = append(b.buf, make([]byte, -len(b.buf)&(unix.NLMSG_ALIGNTO-1))...) }

// seal numbers the requests from seq on and asks for an acknowledgement of the last one only: the kernel reports
// failures unasked, in order, so the silence before that acknowledgement means success.
func (b *batch) seal(seq uint32) {
	for i, start := range b.starts {
		end := len(b.buf)
		if i+1 < len(b.starts) {
			end = b.starts[i+1]
		}
		request := b.buf[start:end]
		binary.NativeEndian.PutUint32(request[0:], uint32(len(request)))
		binary.NativeEndian.PutUint32(request[8:], seq+uint32(i))
		if end == len(b.buf) {
			flags := binary.NativeEndian.Uint16(request[6:])
			binary.NativeEndian.PutUint16(request[6:], flags|unix.NLM_F_ACK)
		}
	}
}

func (b *batch) reset() { b.buf, b.starts = b.buf[:0], b.starts[:0] }

// message is one answer or notification.
type message struct {
	typ   uint16
	flags uint16
	seq   uint32
	port  uint32 // of the socket whose request caused it; 0 if the kernel cannot tell
	data  []byte
}

// messages iterates over the messages of a datagram.
func messages(b []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			n := int(binary.NativeEndian.Uint32(b))
			if n < unix.SizeofNlMsghdr || n > len(b) {
				return
			}
			m := message{
				typ:   binary.NativeEndian.Uint16(b[4:]),
				flags: binary.NativeEndian.Uint16(b[6:]),
				seq:   binary.NativeEndian.Uint32(b[8:]),
				port:  binary.NativeEndian.Uint32(b[12:]),
				data:  b[unix.SizeofNlMsghdr:n],
			}
			if !yield(m) {
				return
			}
			b = b[min(notify.Align(n), len(b)):]
		}
	}
}

// err is the result that an NLMSG_ERROR or NLMSG_DONE carries, with the kernel's own words if it has any.
func (m message) err() error {
	if len(m.data) < 4 {
		return nil
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.data)))
	if errno == 0 {
		return nil
	}
	if m.flags&unix.NLM_F_ACK_TLVS != 0 && len(m.data) > 4+unix.SizeofNlMsghdr {
		for typ, value := range notify.Attributes(m.data[4+unix.SizeofNlMsghdr:]) {
			if typ == unix.NLMSGERR_ATTR_MSG {
				return fmt.Errorf("%w: %s", errno, unix.ByteSliceToString(value))
			}
		}
	}
	return errno
}

// addressFamily is the kernel's number of an IP version.
func addressFamily(f ip.Family) uint8 {
	if f == ip.IPv4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// familyOf is the inverse of addressFamily.
func familyOf(af uint8) (ip.Family, bool) {
	switch af {
	case unix.AF_INET:
		return ip.IPv4, true
	case unix.AF_INET6:
		return ip.IPv6, true
	}
	return 0, false
}

func toAddr(b []byte) netip.Addr {
	addr, _ := netip.AddrFromSlice(b)
	return addr
}
