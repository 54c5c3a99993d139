package etcdtransport

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Answers to requests that were under way at once come in any order. What the latest request was told holds.
func TestRefusalsOutOfOrder(t *testing.T) {
	var log strings.Builder
	h := newHealth(Config{Prefix: "/n", Logger: slog.New(slog.NewTextHandler(&log, nil))})
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	denied := rpctypes.ErrGRPCPermissionDenied
	for i, step := range []struct {
		made    int
		keys    string
		err     error
		refused string // the keys, if any
	}{
		{2, "/n/", denied, "/n/"},
		{3, "/n/", nil, ""},
		{1, "/n/", denied, ""}, // was under way
		{4, "/n/", denied, "/n/"},
		{5, "/n/", nil, ""},
		{3, "/n/claims/", denied, "/n/claims/"},
		{6, "/n/", nil, "/n/claims/"},
		{7, "/n/claims/", nil, ""},
		{2, "/n/claims/", denied, ""},
	} {
		if step.err != nil {
			h.refuse(step.keys, at(step.made), step.err)
		} else {
			h.permit(step.keys, at(step.made))
		}
		err := h.lastRefused()
		if (err != nil) != (step.refused != "") || err != nil && !strings.Contains(err.Error(), "use all of "+step.refused+":") {
			t.Errorf("step %d, %+v: %v", i, step, err)
		}
	}
	if n := strings.Count(log.String(), "refuses"); n != 3 {
		t.Errorf("%d refusals in the log, want 3:\n%s", n, &log)
	}
}
