package etcdtransport

import (
	"time"

	"tulle/internal/backoff"
)

// ConnectBackoff spaces out attempts to get etcd back.
func ConnectBackoff() *backoff.Backoff {
	return &backoff.Backoff{First: 100 * time.Millisecond, Most: 5 * time.Second}
}

// RequestBackoff spaces out attempts of a request that others were faster with.
func RequestBackoff() *backoff.Backoff {
	return &backoff.Backoff{First: 5 * time.Millisecond, Most: 250 * time.Millisecond}
}
