package kernel

import (
	"cmp"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"tulle/ip/kernel/notify"
)

// eachRule calls rule with each rule of a chain, one by one: the library's GetRules has all messages and all rules in memory
// at a time, a kilobyte for each of ten thousand. What rule gets has expressions and comment alone, and is only valid until it returns.
func eachRule(s *socket, chain *nftables.Chain, rule func(*nftables.Rule)) error {
	family := byte(chain.Table.Family)
	var malformed error
	var request batch
	request.attr(unix.NFTA_RULE_TABLE, []byte(chain.Table.Name+"\x00")...)
	request.attr(unix.NFTA_RULE_CHAIN, []byte(chain.Name+"\x00")...)
	header := append([]byte{family, unix.NFNETLINK_V0, 0, 0}, request.buf...)
	err := s.list(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE, header, func(m message) {
		if malformed != nil || len(m.data) < nfHeader {
			return
		}
		var r nftables.Rule
		for typ, value := range notify.Attributes(m.data[nfHeader:]) {
			switch typ {
			case unix.NFTA_RULE_USERDATA:
				r.UserData = value
			case unix.NFTA_RULE_EXPRESSIONS:
				r.Exprs, malformed = parseExpressions(family, value)
			}
		}
		if malformed == nil {
			rule(&r)
		}
	})
	return cmp.Or(err, malformed)
}

// parseExpressions reads the expressions of a rule; those that nothing asks about are nil.
func parseExpressions(family byte, list []byte) (exprs []expr.Any, err error) {
	for _, element := range notify.Attributes(list) {
		var name string
		var data []byte
		for typ, value := range notify.Attributes(element) {
			switch typ {
			case unix.NFTA_EXPR_NAME:
				name = text(value)
			case unix.NFTA_EXPR_DATA:
				data = value
			}
		}
		switch name {
		case "last", "dup", "tproxy": // no condition, and the packet goes on
			continue
		}
		e := newExpression(name)
		if e != nil && data != nil {
			if err := expr.Unmarshal(family, data, e); err != nil {
				return nil, err
			}
		}
		if i, ok := e.(*expr.Immediate); ok && i.Register == verdictRegister && len(i.Data) == 0 {
			e = &expr.Verdict{}
			if err := expr.Unmarshal(family, data, e); err != nil {
				return nil, err
			}
		}
		exprs = append(exprs, e)
	}
	return exprs, nil
}

// newExpression makes an empty expression of a kind that filterDecoder knows, by the kernel's name for it; nil for others.
func newExpression(name string) expr.Any {
	switch name {
	case "bitwise":
		return &expr.Bitwise{}
	case "cmp":
		return &expr.Cmp{}
	case "counter":
		return &expr.Counter{}
	case "ct":
		return &expr.Ct{}
	case "immediate":
		return &expr.Immediate{}
	case "log":
		return &expr.Log{}
	case "lookup":
		return &expr.Lookup{}
	case "match":
		return &expr.Match{}
	case "meta":
		return &expr.Meta{}
	case "notrack":
		return &expr.Notrack{}
	case "objref":
		return &expr.Objref{}
	case "payload":
		return &expr.Payload{}
	case "range":
		return &expr.Range{}
	case "reject":
		return &expr.Reject{}
	case "target":
		return &expr.Target{}
	}
	return nil
}
