package main

import (
	"os"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// gcPercent is a third less memory for some percent of CPU time: what a pass over all peers leaves is collected sooner.
	gcPercent = 40
	// gcPercentOfStart is the same for a start, in which the heap grows to what it will be, and others wait.
	gcPercentOfStart = 200
	startTime        = 10 * time.Second // if it takes longer
)

// collectRarely has the garbage of a start collected rarely, until the start has ended, of which it is to be told. What GOGC says goes before.
func collectRarely() (ended func()) {
	if _, chosen := os.LookupEnv("GOGC"); chosen {
		return func() {}
	}
	debug.SetGCPercent(gcPercentOfStart)
	ended = sync.OnceFunc(func() { debug.SetGCPercent(gcPercent) })
	time.AfterFunc(startTime, ended)
	return ended
}
