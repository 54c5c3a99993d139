package etcd

import (
	"time"

	"golang.org/x/sys/unix"
)

// uptime is a clock that neither jumps nor stands still while the machine is suspended (clock_gettime(2), CLOCK_BOOTTIME).
func uptime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic(err) // the kernel has the clock since 2.6.39
	}
	return time.Duration(now.Nano())
}
