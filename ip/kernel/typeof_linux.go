package kernel

import (
	"encoding/binary"
	"errors"

	"github.com/google/nftables"
	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/notify"
)

// errWritten ends what the library writes before it is sent.
var errWritten = errors.New("not to be sent")

// transact sends what fn writes as one transaction, in which the sets of a guard say what the numbers in them are. The library
// cannot add that to a set. Without it, nft(8) 1.0.6 does not list a set that has elements of numbers, but crashes.
func (r *ruleset) transact(g ip.Guard, fn func(*nftables.Conn) error) error {
	var messages []nfnetlink.Message
	c, err := nftables.New(nftables.WithTestDial(func(written []nfnetlink.Message) ([]nfnetlink.Message, error) {
		messages = append(messages, written...)
		return nil, errWritten
	}))
	if err != nil {
		return err
	}
	if err := fn(c); err != nil && !errors.Is(err, errWritten) {
		return err
	}
	for i := range messages {
		m := &messages[i]
		m.Header.Length, m.Header.Sequence, m.Header.PID = 0, 0, 0
		m.Header.Flags &^= nfnetlink.Acknowledge | unix.NLM_F_ECHO
		if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWSET {
			m.Data = describeNumbers(m.Data, g)
		}
	}
	// What precedes the end of the batch is answered: with an error if anything of it failed.
	if last := len(messages) - 2; last > 0 {
		messages[last].Header.Flags |= nfnetlink.Acknowledge
	}
	if _, err := r.socket.SendMessages(messages); err != nil {
		return err
	}
	_, err = r.socket.Receive()
	return err
}

// describeNumbers adds to a request for a set what libnftnl calls user data, if it is the set of sources: that its elements are
// those of "typeof ip saddr . @th,336,32". The numbers are of include/udata.h there, and of enum expr_types and enum
// proto_desc_id in nftables.
func describeNumbers(request []byte, g ip.Guard) []byte {
	const (
		keyTypeof                             = 3 // NFTNL_UDATA_SET_KEY_TYPEOF
		kind, data                            = 0, 1
		concatenation, payload                = 13, 7
		protocol, field, base, offset, length = 0, 1, 2, 3, 4
	)
	named := false
	for typ, value := range notify.Attributes(request[nfHeader:]) {
		named = named || typ == unix.NFTA_SET_NAME && string(value) == ip.GuardSources+"\x00"
	}
	if !named {
		return request
	}
	header, source := uint32(12), uint32(11) // PROTO_DESC_IP, IPHDR_SADDR
	if g.Family == ip.IPv6 {
		header, source = 13, 8 // PROTO_DESC_IP6, IP6HDR_SADDR
	}
	number := func(typ byte, n uint32) []byte { return udata(typ, binary.NativeEndian.AppendUint32(nil, n)) }
	outer := udata(0, number(kind, payload), udata(data, number(protocol, header), number(field, source)))
	inner := udata(1, number(kind, payload), udata(data, number(protocol, 0), number(field, 0), number(base, 3),
		number(offset, uint32(8*g.Tunnel().InnerSourceOffset(g.Family))), number(length, uint32(g.Family.Bits()))))
	var b batch
	b.attr(unix.NFTA_SET_USERDATA, udata(keyTypeof, number(kind, concatenation), udata(data, outer, inner))...)
	return append(request, b.buf...)
}

// udata is one attribute of user data: type, length, value.
func udata(typ byte, values ...[]byte) []byte {
	b := []byte{typ, 0}
	for _, v := range values {
		b = append(b, v...)
	}
	b[1] = byte(len(b) - 2)
	return b
}
