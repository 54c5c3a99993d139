package flannel

import (
	"encoding/base64"
	"strconv"

	"tulle/subnet"
)

// probe is where a host is asked whether packets arrive, as the value of its lease has it.
type probe struct {
	Port uint16
	Key  []byte // base64 in JSON
}

const (
	probePort = "Port"
	probeKey  = "Key"
)

func encodeProbe(p subnet.Probe) *probe {
	if p == (subnet.Probe{}) {
		return nil
	}
	return &probe{p.Port, p.Key[:]}
}

// readProbe reads what it can of a valid JSON value that should be a probe. What makes no sense is none: a host that cannot be asked has its lease
// all the same.
func readProbe(raw string) (p subnet.Probe) {
	if raw == "" || raw[0] != '{' {
		return p
	}
	members := splitObject(raw)
	port, err := strconv.ParseUint(members.take(probePort), 10, 16)
	if err != nil || port == 0 {
		return p
	}
	text, err := members.text(probeKey)
	if err != nil || len(text) != base64.StdEncoding.EncodedLen(len(p.Key)) {
		return p
	}
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(key) != len(p.Key) || subnet.ProbeKey(key) == (subnet.ProbeKey{}) {
		return p
	}
	return subnet.Probe{Port: uint16(port), Key: subnet.ProbeKey(key)}
}
