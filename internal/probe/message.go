package probe

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"tulle/ip"
)

// A message is the payload of one UDP datagram, numbers in network byte order:
//
//	offset  bytes
//	     0      1  version, 1
//	     1      1  kind: 1 question, 2 answer
//	     2      2  length of the whole message in bytes
//	     4      8  nonce: made for each question, repeated in its answer
//	    12     16  HMAC-SHA256 (RFC 2104, FIPS 180-4) of what is before it, cut to 16 bytes, under the key of the host that is asked
//	    28         zeros, up to the length that is asked for
//
// The code covers the length but not the zeros, so that a message costs the same to check at any length.
type message struct {
	kind  kind
	nonce uint64
}

type kind uint8

const (
	question kind = 1
	answer   kind = 2
)

const (
	messageVersion = 1
	codeOffset     = 12
	codeSize       = 16
	messageSize    = codeOffset + codeSize // of a small one, in bytes
	udpHeader      = 8                     // bytes (RFC 768)
	maxPacket      = 1<<16 - 1             // bytes of the longest IP packet that is asked for
)

var errForeign = errors.New("not a probe's message")

// encode makes a message of size bytes, at least messageSize, in buf, which is replaced if it is too short.
func (m message) encode(buf []byte, key Key, size int) []byte {
	size = max(size, messageSize)
	if cap(buf) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	buf[0], buf[1] = messageVersion, byte(m.kind)
	binary.BigEndian.PutUint16(buf[2:], uint16(size))
	binary.BigEndian.PutUint64(buf[4:], m.nonce)
	copy(buf[codeOffset:messageSize], code(buf, key))
	clear(buf[messageSize:])
	return buf
}

// parse reads all of a message but its code, which authentic checks.
func parse(buf []byte) (message, error) {
	if len(buf) < messageSize || buf[0] != messageVersion {
		return message{}, errForeign
	}
	m := message{kind: kind(buf[1]), nonce: binary.BigEndian.Uint64(buf[4:])}
	if m.kind != question && m.kind != answer {
		return message{}, fmt.Errorf("%w: kind %d", errForeign, m.kind)
	}
	if length := int(binary.BigEndian.Uint16(buf[2:])); length != len(buf) {
		return message{}, fmt.Errorf("message of %d bytes says it has %d", len(buf), length)
	}
	return m, nil
}

// authentic reports whether a message that parse has read was made by somebody who knows the key.
func authentic(buf []byte, key Key) bool {
	return hmac.Equal(buf[codeOffset:messageSize], code(buf, key))
}

func code(buf []byte, key Key) []byte {
	mac := hmac.New(sha256.New, key[:])
	mac.Write(buf[:codeOffset])
	return mac.Sum(nil)[:codeSize]
}

// overhead is what an IP packet has around a message, in bytes.
func overhead(f ip.Family) int {
	if f == ip.IPv4 {
		return 20 + udpHeader
	}
	return 40 + udpHeader
}

// smallPacket is the length of the IP packet with a small message, in bytes.
func smallPacket(f ip.Family) int { return overhead(f) + messageSize }
