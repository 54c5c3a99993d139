//go:build unix

package regularfile

import "syscall"

const noFollow, nonBlock = syscall.O_NOFOLLOW, syscall.O_NONBLOCK
