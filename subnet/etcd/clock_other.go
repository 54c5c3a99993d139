//go:build !linux

package etcd

import "time"

// uptime is the wall clock, which at least goes on while the machine is suspended. Only tulled, which is for Linux, holds
// leases for long.
func uptime() time.Duration { return time.Duration(time.Now().UnixNano()) }
