// Package sim runs whole agents, on a store and kernels in memory, through faults that a seed decides, and holds what
// happens against the invariants.
package sim
