package probe

import (
	"bytes"
	"slices"
	"testing"
)

func TestMessage(t *testing.T) {
	key := Key{1, 2, 3}
	for _, m := range []message{{question, 1}, {answer, 1<<64 - 1}} {
		for _, size := range []int{messageSize, messageSize + 1, 1472, maxPacket - 28} {
			buf := m.encode(bytes.Repeat([]byte("before"), maxPacket), key, size)
			got, err := parse(buf)
			if len(buf) != size || err != nil || got != m || !authentic(buf, key) {
				t.Errorf("%+v of %d bytes: read %+v of %d bytes, error %v, authentic %t", m, size, got, len(buf), err, authentic(buf, key))
			}
			if slices.ContainsFunc(buf[messageSize:], func(b byte) bool { return b != 0 }) {
				t.Errorf("%d bytes: padded with what was in the buffer before", size)
			}
		}
	}
	if buf := (message{question, 1}).encode(nil, key, 0); len(buf) != messageSize {
		t.Errorf("a message of no bytes has %d", len(buf))
	}
}

// The format on the wire, which hosts of other versions read, does not change by accident.
func TestMessageOnTheWire(t *testing.T) {
	got := message{question, 0x0102030405060708}.encode(nil, Key([]byte("0123456789abcdef")), 30)
	want := []byte("\x01\x01\x00\x1e\x01\x02\x03\x04\x05\x06\x07\x08" + wireCode + "\x00\x00")
	if !bytes.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

// wireCode was computed by another program: printf '\1\1\0\36\1\2\3\4\5\6\7\10' | openssl dgst -sha256 -hmac 0123456789abcdef
const wireCode = "\x60\x51\x0c\x8a\x96\x44\xd8\xd9\x27\x06\x0d\x60\x81\x44\x0b\x94"

// A message that is cut short, or changed in any byte that counts, or made with another key, is not taken for one.
func TestForgedMessages(t *testing.T) {
	key := Key{1}
	whole := message{question, 7}.encode(nil, key, 40)
	if authentic(whole, Key{2}) {
		t.Error("another key counts")
	}
	for n := range whole {
		if _, err := parse(whole[:n]); err == nil {
			t.Errorf("the first %d bytes of %d count", n, len(whole))
		}
	}
	if _, err := parse(append(slices.Clone(whole), 0)); err == nil {
		t.Error("a byte more counts")
	}
	for i := range messageSize {
		for bit := range 8 {
			changed := slices.Clone(whole)
			changed[i] ^= 1 << bit
			if _, err := parse(changed); err == nil && authentic(changed, key) {
				t.Errorf("changed in bit %d of byte %d, it counts", bit, i)
			}
		}
	}
}

// A question cannot be sent back as its answer.
func TestQuestionIsNoAnswer(t *testing.T) {
	buf := message{question, 7}.encode(nil, Key{1}, 40)
	buf[1] = byte(answer)
	if m, err := parse(buf); err != nil || m.kind != answer {
		t.Fatalf("%+v, %v", m, err)
	}
	if authentic(buf, Key{1}) {
		t.Error("the code of a question counts for an answer")
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(message{question, 1}.encode(nil, Key{}, 0))
	f.Add(message{answer, 1}.encode(nil, Key{}, 1400))
	f.Fuzz(func(t *testing.T, buf []byte) {
		m, err := parse(buf)
		if err != nil {
			return
		}
		authentic(buf, Key{})
		again := m.encode(nil, Key{}, len(buf))
		if !bytes.Equal(again[:codeOffset], buf[:codeOffset]) {
			t.Errorf("%x reads as %+v, which is written as %x", buf[:codeOffset], m, again[:codeOffset])
		}
	})
}
