package doctor

import (
	"net/netip"
	"strings"
	"testing"
)

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func TestResolve(t *testing.T) {
	members := []Member{
		{Node: "h1", Lease: "10.5.1.0-24", Subnets: prefixes("10.5.1.0/24", "fc00:5:0:1::/64"), Public: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		{Node: "h2", Lease: "10.5.2.0-24", Subnets: prefixes("10.5.2.0/24"), Public: []netip.Addr{netip.MustParseAddr("192.0.2.2")}},
		{Lease: "10.5.3.0-24", Subnets: prefixes("10.5.3.0/24")}, // a flanneld's
	}
	for word, want := range map[string]struct {
		host, of  string
		container bool
	}{
		"h1": {"h1", "", false}, "h2": {"h2", "", false}, "192.0.2.2": {"h2", "", false},
		"10.5.2.7": {"h2", "10.5.2.7", true}, "::ffff:10.5.2.7": {"h2", "10.5.2.7", true}, "fc00:5:0:1::7": {"h1", "fc00:5:0:1::7", true}, "10.5.3.9": {"", "10.5.3.9", true},
		"10.5.2.1": {"h2", "", false}, "10.5.2.0": {"h2", "", false},
		"h2/web": {"h2", "web", true}, "h1/web": {"h1", "web", true}, "web": {"h1", "web", true}, "h2/k8s/web": {"h2", "k8s/web", true},
	} {
		got, err := Resolve(word, members, "h1")
		if err != nil || got.Host != want.host || got.Of != want.of || got.Container != want.container || got.Name != word || got.Member == nil {
			t.Errorf("%s means %+v, %v, want %+v", word, got, err, want)
		}
	}
	for word, want := range map[string]string{"203.0.113.9": "no address of a host", "h9/web": `node id "h9"`, "h2/": "HOST/CONTAINER"} {
		if got, err := Resolve(word, members, "h1"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s means %+v, %v, want an error with %q", word, got, err, want)
		}
	}
	if got, err := Resolve("here", members, "here"); err != nil || got.Of != "" || got.Container {
		t.Errorf("a host without a lease is %+v, %v", got, err)
	}
}

func TestAddrOf(t *testing.T) {
	f := Facts{Status: &Status{Networks: []Network{{Prefixes: prefixes("10.5.0.0/16", "fc00:5::/48"), Subnets: prefixes("10.5.1.0/24")}}}}
	c := Container{Addrs: prefixes("172.17.0.2/16", "10.5.1.2/24", "fc00:5:0:1::2/64")}
	if a, b := f.AddrOf(c, false), f.AddrOf(c, true); a.String() != "10.5.1.2" || b.String() != "fc00:5:0:1::2" {
		t.Errorf("addresses %s and %s", a, b)
	}
	if a := f.AddrOf(Container{Addrs: prefixes("10.5.1.2/24")}, true); a.String() != "10.5.1.2" {
		t.Errorf("without one of the family: %s", a)
	}
	if a := f.AddrOf(Container{Addrs: prefixes("172.17.0.2/16")}, false); a.IsValid() {
		t.Errorf("outside of the network: %s", a)
	}
}
