package flannel

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tulle/ip"
	"tulle/subnet"
)

func dualAddr(t testing.TB, v4, v6 string) ip.Dual[netip.Addr] {
	t.Helper()
	var d ip.Dual[netip.Addr]
	for f, text := range map[ip.Family]string{ip.IPv4: v4, ip.IPv6: v6} {
		if text == "" {
			continue
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		d.Set(f, addr)
	}
	return d
}

func compareAttrs() cmp.Option {
	return cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
}

// What running flannelds wrote, and the same with Tulle's own field.
func TestAttrsTexts(t *testing.T) {
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	for _, tt := range []struct {
		name, text string
		attrs      Attrs
	}{
		{
			"vxlan ipv4",
			`{"PublicIP":"10.99.0.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"4e:f3:a5:78:97:d4"}}`,
			Attrs{
				Public: dualAddr(t, "10.99.0.1", ""), BackendType: "vxlan",
				BackendData: ip.Dual[json.RawMessage]{V4: raw(`{"VNI":1,"VtepMAC":"4e:f3:a5:78:97:d4"}`)},
			},
		},
		{
			"vxlan dual",
			`{"PublicIP":"10.99.0.1","PublicIPv6":"fd99::1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"5a:00:00:00:00:01"},"BackendV6Data":{"VNI":1,"VtepMAC":"d2:00:00:00:00:01"}}`,
			Attrs{
				Public: dualAddr(t, "10.99.0.1", "fd99::1"), BackendType: "vxlan",
				BackendData: ip.Dual[json.RawMessage]{V4: raw(`{"VNI":1,"VtepMAC":"5a:00:00:00:00:01"}`), V6: raw(`{"VNI":1,"VtepMAC":"d2:00:00:00:00:01"}`)},
			},
		},
		{
			"vxlan ipv6",
			`{"PublicIP":"0.0.0.0","PublicIPv6":"fd99::2","BackendType":"vxlan","BackendV6Data":{"VNI":1,"VtepMAC":"d2:00:00:00:00:02"}}`,
			Attrs{
				Public: dualAddr(t, "", "fd99::2"), BackendType: "vxlan",
				BackendData: ip.Dual[json.RawMessage]{V6: raw(`{"VNI":1,"VtepMAC":"d2:00:00:00:00:02"}`)},
			},
		},
		{
			"host-gw ipv4",
			`{"PublicIP":"10.99.0.2","PublicIPv6":null,"BackendType":"host-gw"}`,
			Attrs{Public: dualAddr(t, "10.99.0.2", ""), BackendType: "host-gw"},
		},
		{
			"host-gw dual",
			`{"PublicIP":"10.99.0.2","PublicIPv6":"fd99::2","BackendType":"host-gw"}`,
			Attrs{Public: dualAddr(t, "10.99.0.2", "fd99::2"), BackendType: "host-gw"},
		},
		{
			"alloc",
			`{"PublicIP":"10.99.0.2","PublicIPv6":null}`,
			Attrs{Public: dualAddr(t, "10.99.0.2", "")},
		},
		{
			"wireguard",
			`{"PublicIP":"10.99.0.2","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"aGVsbG8+/w==","Port":51820},"BackendV6Data":{"PublicKey":"aGVsbG8+/w==","Port":51821}}`,
			Attrs{
				Public: dualAddr(t, "10.99.0.2", ""), BackendType: "wireguard",
				BackendData: ip.Dual[json.RawMessage]{V4: raw(`{"PublicKey":"aGVsbG8+/w==","Port":51820}`), V6: raw(`{"PublicKey":"aGVsbG8+/w==","Port":51821}`)},
			},
		},
		{
			"extension",
			`{"PublicIP":"10.99.0.2","PublicIPv6":null,"BackendType":"extension","BackendData":"any \u0026 text"}`,
			Attrs{
				Public: dualAddr(t, "10.99.0.2", ""), BackendType: "extension",
				BackendData: ip.Dual[json.RawMessage]{V4: raw(`"any \u0026 text"`)},
			},
		},
		{
			"tulle",
			`{"PublicIP":"10.99.0.2","PublicIPv6":null,"BackendType":"host-gw","Tulle":{"Node":"n1","Instance":"i1"}}`,
			Attrs{Public: dualAddr(t, "10.99.0.2", ""), BackendType: "host-gw", Node: "n1", Instance: "i1"},
		},
		{
			"probe",
			`{"PublicIP":"10.99.0.2","PublicIPv6":null,"Tulle":{"Node":"n1","Hardware":["a"],"Probe":{"Port":8473,"Key":"AQIDBAUGBwgJCgsMDQ4P/w=="}}}`,
			Attrs{Public: dualAddr(t, "10.99.0.2", ""), Node: "n1", Hardware: []string{"a"}, Probe: subnet.Probe{
				Port: 8473, Key: subnet.ProbeKey{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255},
			}},
		},
		{
			"fields of a later version",
			`{"PublicIP":"10.99.0.2","PublicIPv6":null,"Tulle":{"Node":"n1"},"A":null,"Zone":{"b":2,"a":1}}`,
			Attrs{
				Public: dualAddr(t, "10.99.0.2", ""), Node: "n1",
				Extra: map[string]json.RawMessage{"A": raw("null"), "Zone": raw(`{"b":2,"a":1}`)},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got Attrs
			if err := json.Unmarshal([]byte(tt.text), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.attrs, got, compareAttrs()); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
			text, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if string(text) != tt.text {
				t.Errorf("encoded %s\nwant    %s", text, tt.text)
			}
		})
	}
}

func TestAttrsReadsLoosely(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want Attrs
	}{
		"empty object":          {`{}`, Attrs{}},
		"names in another case": {`{"publicip":"10.0.0.1","BACKENDTYPE":"vxlan","tulle":{"node":"n"}}`, Attrs{Public: dualAddr(t, "10.0.0.1", ""), BackendType: "vxlan", Node: "n"}},
		"exact name counts":     {`{"PublicIP":"10.0.0.1","publicip":"10.0.0.2"}`, Attrs{Public: dualAddr(t, "10.0.0.1", "")}},
		"nulls":                 {`{"PublicIPv6":null,"BackendType":null,"BackendData":null,"Tulle":null}`, Attrs{}},
		"unspecified addresses": {`{"PublicIP":"0.0.0.0","PublicIPv6":"::"}`, Attrs{}},
		"white space":           {" {\n\"PublicIP\" : \"10.0.0.1\" } ", Attrs{Public: dualAddr(t, "10.0.0.1", "")}},
	} {
		var got Attrs
		if err := json.Unmarshal([]byte(tt.text), &got); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(tt.want, got, compareAttrs()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A probe that makes no sense costs a host the questions of others, not its lease.
func TestAttrsPassesOverProbes(t *testing.T) {
	const key = `"AQIDBAUGBwgJCgsMDQ4P/w=="`
	for _, probe := range []string{
		`null`, `1`, `"x"`, `[]`, `{}`, `{"Port":8473}`, `{"Key":` + key + `}`, `{"Port":null,"Key":` + key + `}`, `{"Port":0,"Key":` + key + `}`,
		`{"Port":65536,"Key":` + key + `}`, `{"Port":-1,"Key":` + key + `}`, `{"Port":8473.5,"Key":` + key + `}`, `{"Port":"8473","Key":` + key + `}`,
		`{"Port":8473,"Key":null}`, `{"Port":8473,"Key":[1,2]}`, `{"Port":8473,"Key":"AQID"}`, `{"Port":8473,"Key":"AAAAAAAAAAAAAAAAAAAAAA=="}`,
		`{"Port":8473,"Key":"AQIDBAUGBwgJCgsMDQ4P/x=="}`, `{"Port":8473,"Key":"AQIDBAUGBwgJCgsMDQ4P/w!!"}`, `{"Port":8473,"Key":"` + strings.Repeat("A", 4096) + `"}`,
	} {
		var got Attrs
		if err := json.Unmarshal([]byte(`{"Tulle":{"Node":"n","Probe":`+probe+`,"Hardware":["a"]}}`), &got); err != nil {
			t.Errorf("%s: %v", probe, err)
		} else if diff := cmp.Diff(Attrs{Node: "n", Hardware: []string{"a"}}, got, compareAttrs()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", probe, diff)
		}
	}
	var got Attrs
	if err := json.Unmarshal([]byte(`{"Tulle":{"node":"n","probe":{"key":`+key+`,"port":1,"More":2}}}`), &got); err != nil || got.Probe.Port != 1 || got.Probe.Key[15] != 255 {
		t.Errorf("read as %+v, %v", got, err)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", got, got, got, got.Probe.Key); strings.Contains(text, "14 15 255") || strings.Contains(text, "0xff") {
		t.Errorf("a key is printed: %s", text)
	}
}

func TestAttrsRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ text, reason string }{
		"null":                 {`null`, "got null"},
		"array":                {`[1]`, "got array"},
		"null IPv4":            {`{"PublicIP":null}`, "PublicIP null is not an ipv4 address"},
		"number":               {`{"PublicIP":1}`, "PublicIP 1 is not"},
		"IPv6 as IPv4":         {`{"PublicIP":"fd99::1"}`, `PublicIP "fd99::1" is not an ipv4`},
		"IPv4 as IPv6":         {`{"PublicIPv6":"10.0.0.1"}`, `PublicIPv6 "10.0.0.1" is not an ipv6`},
		"mapped IPv4":          {`{"PublicIPv6":"::ffff:10.0.0.1"}`, "is not an ipv6"},
		"zone":                 {`{"PublicIPv6":"fe80::1%eth0"}`, "is not an ipv6"},
		"backend type":         {`{"BackendType":["vxlan"]}`, `BackendType ["vxlan"] is not a string`},
		"own field":            {`{"Tulle":"n1"}`, `decode Tulle "n1"`},
		"too large":            {`{"BackendData":"` + strings.Repeat("x", maxAttrs) + `"}`, "more than 65536"},
		"long value in errors": {`{"BackendType":[` + strings.Repeat("1,", 999) + `1]}`, "..."},
	} {
		var got Attrs
		err := json.Unmarshal([]byte(tt.text), &got)
		if err == nil {
			t.Errorf("%s: decoded to %v", name, got)
		} else if !strings.Contains(err.Error(), tt.reason) || len(err.Error()) > 200 {
			t.Errorf("%s: error %q, want it to say %q", name, err, tt.reason)
		}
	}
}

func TestAttrsExtraHidesNoField(t *testing.T) {
	a := Attrs{BackendType: "vxlan", Extra: map[string]json.RawMessage{"backendtype": json.RawMessage(`"udp"`), "Site": json.RawMessage(`"b"`)}}
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"PublicIP":"0.0.0.0","PublicIPv6":null,"BackendType":"vxlan","Site":"b"}`; string(text) != want {
		t.Errorf("encoded %s\nwant    %s", text, want)
	}
	a.Extra["Site"] = json.RawMessage("{")
	if _, err := json.Marshal(a); err == nil || !strings.Contains(err.Error(), "Site") {
		t.Errorf("encoding broken JSON: error %v, want it to name Site", err)
	}
}

func FuzzAttrs(f *testing.F) {
	for _, text := range []string{
		`{"PublicIP":"10.99.0.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"4e:f3:a5:78:97:d4"}}`,
		`{"PublicIP":"0.0.0.0","PublicIPv6":"fd99::2","BackendV6Data":{},"Tulle":{"Node":"n","Instance":"i"},"x":[1,2]}`,
		`{"Tulle":{"Node":"n","Probe":{"Port":8473,"Key":"AQIDBAUGBwgJCgsMDQ4P/w=="}}}`, `{"Tulle":{"Node":"n","Probe":{"Port":-1,"Key":"?"}}}`,
		`{"publicip":"10.0.0.1","PUBLICIP":"10.0.0.2","":""}`, `null`, `{`, `[]`, `{"PublicIP":null}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var a Attrs
		if a.UnmarshalJSON(text) != nil {
			return
		}
		first, err := json.Marshal(a)
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		var b Attrs
		if len(first) > maxAttrs {
			return // escapes may make it longer
		}
		if err := json.Unmarshal(first, &b); err != nil {
			t.Fatalf("decode %s: %v", first, err)
		}
		second, err := json.Marshal(b)
		if err != nil || string(first) != string(second) {
			t.Errorf("encoded first as %s, then as %s (%v)", first, second, err)
		}
	})
}
