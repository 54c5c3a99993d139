//go:build !unix

package regularfile

// Other systems have no named pipes in directories, and Tulle does not run on them.
const noFollow, nonBlock = 0, 0
