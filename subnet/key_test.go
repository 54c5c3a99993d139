package subnet

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tulle/ip"
)

// subnetsOf makes the subnets of a lease; "" stands for none.
func subnetsOf(t testing.TB, v4, v6 string) Subnets {
	t.Helper()
	var s Subnets
	for f, text := range map[ip.Family]string{ip.IPv4: v4, ip.IPv6: v6} {
		if text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		s.Set(f, p)
	}
	return s
}

func TestKeyTexts(t *testing.T) {
	for _, tt := range []struct{ v4, v6, key string }{
		{"10.5.34.0/24", "", "10.5.34.0-24"},
		{"10.50.58.0/24", "fc00:50:0:5d::/64", "10.50.58.0-24&fc00:50:0:5d::-64"},
		{"10.5.34.0/24", "fc00::/64", "10.5.34.0-24&fc00::-64"},
		{"", "fc00::/64", "0.0.0.0-0&fc00::-64"},
		{"0.0.0.0/0", "", "0.0.0.0-0"},
		{"", "::/0", "0.0.0.0-0&::-0"},
		{"169.254.169.252/30", "", "169.254.169.252-30"},
		{"10.5.1.76/31", "fc00::/127", "10.5.1.76-31&fc00::-127"},
	} {
		s := subnetsOf(t, tt.v4, tt.v6)
		if got := KeyOf(s); got != tt.key {
			t.Errorf("KeyOf(%v) = %q, want %q", s, got, tt.key)
		}
		if got, err := ParseKey(tt.key); err != nil || got != s {
			t.Errorf("ParseKey(%q) = %v, %v; want %v", tt.key, got, err, s)
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	for _, tt := range []struct{ key, reason string }{
		{"", "ADDRESS-LENGTH"},
		{"10.5.1.0", "ADDRESS-LENGTH"},
		{"10.5.1.0/24", "ADDRESS-LENGTH"},
		{"x10.5.1.0-24", "not an ipv4 address"},
		{"10.5.1.0-24x", "from 0 to 31"},
		{"10.5.1.0-24\n", "from 0 to 31"},
		{"10.5.1.0-32", "from 0 to 31"},
		{"10.5.1.0--1", "from 0 to 31"},
		{"10.5.1.0-+24", "from 0 to 31"},
		{"10.5.1.0-024", "write 10.5.1.0-24"},
		{"10.05.1.0-24", "not an ipv4 address"},
		{"10.5.1.256-24", "not an ipv4 address"},
		{"10.5.1.77-24", "write 10.5.1.0-24"},
		{"fc00::-64", "not an ipv4 address"},
		{"10.5.1.0-24&", "ADDRESS-LENGTH"},
		{"&fc00::-64", "ADDRESS-LENGTH"},
		{"10.5.1.0-24&fc00::-128", "from 0 to 127"},
		{"10.5.1.0-24&FC00::-64", "write 10.5.1.0-24&fc00::-64"},
		{"10.5.1.0-24&fc00:0::-64", "write 10.5.1.0-24&fc00::-64"},
		{"10.5.1.0-24&fc00::1-64", "write 10.5.1.0-24&fc00::-64"},
		{"10.5.1.0-24&::ffff:1.2.3.0-120", "not an ipv6 address"},
		{"10.5.1.0-24&::ffff:102:300-120", "not an ipv6 address"},
		{"10.5.1.0-24&fe80::%eth0-64", "not an ipv6 address"},
		{"10.5.1.0-24&10.6.1.0-24", "not an ipv6 address"},
		{"10.5.1.0-24&fc00::-64&fc01::-64", "from 0 to 127"},
		{"0.0.0.0-00&fc00::-64", "write 0.0.0.0-0&fc00::-64"},
	} {
		s, err := ParseKey(tt.key)
		if err == nil {
			t.Errorf("ParseKey(%q) = %v, want an error", tt.key, s)
		} else if !strings.Contains(err.Error(), tt.reason) {
			t.Errorf("ParseKey(%q) = %q, want it to say %q", tt.key, err, tt.reason)
		}
	}
}

// drawPrefix draws a masked prefix with a length in a key's range.
func drawPrefix(t *rapid.T, f ip.Family) netip.Prefix {
	addr, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), f.Bits()/8, f.Bits()/8).Draw(t, "address"))
	return netip.PrefixFrom(addr, rapid.IntRange(0, f.Bits()-1).Draw(t, "length")).Masked()
}

func TestKeyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Subnets
		for _, f := range ip.Families() {
			if rapid.Bool().Draw(t, "present") {
				s.Set(f, drawPrefix(t, f))
			}
		}
		if s == (Subnets{}) || s.V6.Addr().Is4In6() || s.V4.IsValid() && s.V4.Bits() == 0 {
			t.Skip("these have no key of their own")
		}
		if got, err := ParseKey(KeyOf(s)); err != nil || got != s {
			t.Fatalf("ParseKey(%q) = %v, %v", KeyOf(s), got, err)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	for _, key := range []string{"10.5.34.0-24", "10.5.34.0-24&fc00::-64", "0.0.0.0-0&fc00::-64", "0.0.0.0-0", "10.5.1.77-24", "10.5.1.0-32", "&", "-", "a-b&c-d"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		s, err := ParseKey(key)
		if err == nil && KeyOf(s) != key {
			t.Errorf("ParseKey(%q) = %v, whose key is %q", key, s, KeyOf(s))
		}
	})
}
