package inspect

import (
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Rules that look at the name of the bridge are known by what nft(8) makes of them: not every kernel has nft_meta_bridge to try them on.
func TestBridgeNames(t *testing.T) {
	drop := &expr.Verdict{Kind: expr.VerdictDrop}
	name := func(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
		return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: append([]byte(name), 0)}, drop}
	}
	for _, tt := range []struct {
		key   expr.MetaKey
		op    expr.CmpOp
		name  string
		drops bool
	}{
		{expr.MetaKeyBRIIIFNAME, expr.CmpOpEq, "br0", true},
		{expr.MetaKeyBRIIIFNAME, expr.CmpOpEq, "br1", false},
		{expr.MetaKeyBRIIIFNAME, expr.CmpOpNeq, "br1", true},
		{expr.MetaKeyBRIIIFNAME, expr.CmpOpNeq, "br0", false},
		{expr.MetaKeyBRIOIFNAME, expr.CmpOpEq, "br0", true},
		{expr.MetaKeyBRIOIFNAME, expr.CmpOpGt, "br0", false},
		{expr.MetaKeyIIFNAME, expr.CmpOpEq, "port1", true}, // the only one
		{expr.MetaKeyMARK, expr.CmpOpEq, "br0", false},
	} {
		rules := []*nftables.Rule{{Exprs: name(tt.key, tt.op, tt.name)}}
		if got := dropsAll(rules, "br0", []string{"port1"}, false); got != tt.drops {
			t.Errorf("%+v: %t", tt, got)
		}
	}
	if dropsAll([]*nftables.Rule{{Exprs: []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Data: []byte("br0\x00")}, drop}}}, "br0", nil, false) {
		t.Error("a comparison with nothing that is known counts")
	}
}
