package kernel

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/nftables/expr"
	"pgregory.net/rapid"

	"tulle/ip"
)

// TestMatchesAreThoseOfThePrefix compares what the expressions of a rule say of an address with what the prefix says, for every length and for
// addresses that differ from the prefix in few bits; and reads the rule back.
func TestMatchesAreThoseOfThePrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom([]ip.Family{ip.IPv4, ip.IPv6}).Draw(t, "family")
		size := f.Bits() / 8
		bytesOf := func(label string) []byte { return rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, label) }
		base, _ := netip.AddrFromSlice(bytesOf("prefix"))
		p := netip.PrefixFrom(base, rapid.IntRange(0, f.Bits()).Draw(t, "bits")).Masked()
		other := base.AsSlice()
		for range rapid.IntRange(0, 2).Draw(t, "changes") {
			other[rapid.IntRange(0, size-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		}
		addr, _ := netip.AddrFromSlice(other)

		src, dst := addressOffsets(f)
		header := make([]byte, 40)
		copy(header[src:], other)
		copy(header[dst:], bytesOf("destination"))
		r := ip.Rule{Src: ip.Match{Prefix: p, Not: rapid.Bool().Draw(t, "not")}, Verdict: ip.Accept}
		exprs, err := encodeRule(f, r)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := matches(t, exprs, header), p.Contains(addr) != r.Src.Not; got != want {
			t.Fatalf("%s matches %s: %t, want %t: %v", r.Text(), addr, got, want, exprs)
		}
		if got, ok := decodeRule(f, exprs); !ok || got != r {
			t.Fatalf("read back: %q (%t), want %q", got.Text(), ok, r.Text())
		}
	})
}

// matches is what the kernel does with the comparisons of a rule.
func matches(t *rapid.T, exprs []expr.Any, header []byte) bool {
	var loaded []byte
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Payload:
			loaded = bytes.Clone(header[e.Offset : e.Offset+e.Len])
		case *expr.Bitwise:
			for i := range loaded {
				loaded[i] = loaded[i]&e.Mask[i] ^ e.Xor[i]
			}
		case *expr.Cmp:
			if bytes.Equal(loaded, e.Data) != (e.Op == expr.CmpOpEq) {
				return false
			}
		case *expr.Verdict:
			return true
		default:
			t.Fatalf("%T in a rule that compares an address", e)
		}
	}
	return false
}
