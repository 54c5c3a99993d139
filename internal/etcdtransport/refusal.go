package etcdtransport

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// refusal is what the user of the client may not do, though etcd serves: it lasts until the same is allowed.
type refusal struct {
	keys string
	err  error // nil: nothing is refused

	allowed time.Time // when the latest request for these keys that was allowed was made
}

func denied(err error) bool {
	return err != nil && errors.Is(rpctypes.Error(err), rpctypes.ErrPermissionDenied)
}

// refuse takes note of keys that the user may not use. Of two requests under way at once, that which was made first does not tell what holds now.
func (h *health) refuse(keys string, made time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refused.keys == keys && !made.After(h.refused.allowed) {
		return
	}
	fresh := h.refused.err == nil || h.refused.keys != keys
	h.refused = refusal{keys: keys, err: h.refusalOf(keys, err)}
	if fresh {
		h.log.Warn("etcd refuses a request", "err", h.refused.err)
	}
}

// permit takes note of keys that the user may use.
func (h *health) permit(keys string, made time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refused.keys != keys {
		return
	}
	refused := h.refused.err != nil
	h.refused = refusal{keys: keys, allowed: made}
	if refused {
		h.log.Info("etcd allows the request again", "keys", keys)
	}
}

func (h *health) lastRefused() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refused.err
}

func (h *health) refusalOf(keys string, err error) error {
	return fmt.Errorf("etcd at %s: user %q may not use all of %s: grant readwrite on keys with the prefix %s/ to a role of that user "+
		"(that no two hosts have one subnet rests on those below %s/claims/, which flannel does not have): %w",
		h.endpoints, h.username, keys, h.prefix, h.prefix, rpctypes.Error(err))
}

// keysOf names the key that a request reads; of more, and of those that it writes, the directories.
func keysOf(request any) string {
	var keys []string
	add := func(key []byte) { keys = append(keys, path.Dir(string(key))+"/") }
	switch r := request.(type) {
	case *etcdserverpb.RangeRequest:
		if len(r.RangeEnd) == 0 {
			return string(r.Key) // which may be allowed where its directory is not
		}
		add(r.Key)
	case *etcdserverpb.TxnRequest:
		for _, c := range r.Compare {
			add(c.Key)
		}
		for _, op := range slices.Concat(r.Success, r.Failure) {
			if key := keyOf(op); key != nil {
				add(key)
			}
		}
	}
	slices.Sort(keys)
	return strings.Join(slices.Compact(keys), ", ")
}

func keyOf(op *etcdserverpb.RequestOp) []byte {
	switch {
	case op.GetRequestPut() != nil:
		return op.GetRequestPut().Key
	case op.GetRequestRange() != nil:
		return op.GetRequestRange().Key
	case op.GetRequestDeleteRange() != nil:
		return op.GetRequestDeleteRange().Key
	}
	return nil
}
