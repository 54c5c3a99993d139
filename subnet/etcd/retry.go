package etcd

import (
	"time"

	"tulle/internal/backoff"
)

// connectBackoff spaces out attempts to get etcd back.
func connectBackoff() *backoff.Backoff {
	return &backoff.Backoff{First: 100 * time.Millisecond, Most: 5 * time.Second}
}

// requestBackoff spaces out attempts of a request that others were faster with.
func requestBackoff() *backoff.Backoff {
	return &backoff.Backoff{First: 5 * time.Millisecond, Most: 250 * time.Millisecond}
}
