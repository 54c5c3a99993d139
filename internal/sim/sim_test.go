package sim

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tulle/subnet/subnettest"
)

// Settings by environment, as make sim gives them.
const (
	oneSeed   = "TULLE_SIM_SEED"  // run this seed alone, and print all that happens
	manySeeds = "TULLE_SIM_SEEDS" // run so many seeds, from 1 on
	firstSeed = "TULLE_SIM_FIRST" // or from this one on
)

const seedsByDefault = 200

func TestSeeds(t *testing.T) {
	if one, ok := number(t, oneSeed); ok {
		simulate(t, newSchedule(one, throws), true)
		return
	}
	count, ok := number(t, manySeeds)
	if !ok {
		count = seedsByDefault
	}
	first, ok := number(t, firstSeed)
	if !ok {
		first = 1
	}
	for seed := first; seed < first+count; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			simulate(t, newSchedule(seed, throws), false)
		})
	}
}

func number(t *testing.T, name string) (uint64, bool) {
	text := os.Getenv(name)
	if text == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n, true
}

// simulate runs a schedule in a bubble.
func simulate(t *testing.T, plan schedule, verbose bool) {
	t.Helper()
	dir := directory(t)
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{
			t: t, plan: plan, verbose: verbose, started: time.Now(), store: subnettest.NewStore(), dir: dir,
			peers: map[string]*peer{}, cloned: map[string]bool{},
		}
		f.store.Observe(f.observed)
		f.configure()
		for i := range plan.hosts {
			name := fmt.Sprintf("h%d", i+1)
			f.newHost(name, name).start()
			f.sleep(time.Millisecond) // who is first is not for the scheduler of goroutines to say
		}
		f.play()
		for _, h := range f.hosts {
			h.crash()
		}
		if f.failed() {
			t.Errorf("%s\n%s\nlast events:\n%s\nreplay: make sim SEED=%d", plan, strings.Join(f.violations, "\n"), strings.Join(f.history, "\n"), plan.seed)
		}
	})
}

// play lets the events happen, and then all come to rest.
func (f *fleet) play() {
	for _, e := range f.plan.events {
		f.sleep(time.Until(f.started.Add(e.at)))
		f.note("%s", e.text)
		e.do(f)
		synctest.Wait()
		f.checkOwners()
		if f.failed() {
			return
		}
	}
	f.rest()
}

// delays are the times that requests of the n-th host take; nil: none.
func (s schedule) delays(n int) func() time.Duration {
	if s.latency == 0 {
		return nil
	}
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(s.seed, 1<<32+uint64(n)))
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(r.Int64N(int64(s.latency)))
	}
}

// directory is a place for the hosts' files, in memory where there is one: every file is synced to disk.
func directory(t *testing.T) string {
	const memory = "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "tulle-sim-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Clean(dir)
}
