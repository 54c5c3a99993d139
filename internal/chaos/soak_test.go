//go:build linux

package chaos

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

const (
	// soakEnv is how long a soak goes on. Without it there is none.
	soakEnv = "TULLE_SOAK"
	// seedEnv repeats the order of a soak.
	seedEnv = "TULLE_SOAK_SEED"

	// A daemon may have so much more at the end than at the beginning.
	growthFactor = 1.25
	growthBytes  = 8 << 20
	growthFiles  = 4
	// scarceSamples are too few to call it growth.
	scarceSamples = 40
)

// soak runs the scripts in random order for a long time, and watches what the
// daemons need.
type soak struct {
	length time.Duration
	seed   uint64
	usage  []usage
}

// usage is what a daemon needs at a time.
type usage struct {
	rss   int64 // bytes
	files int
	pins  int // of the fast path, below its directory
	fill  int // flows that the fast path has in its map: it grows until the kernel puts out the oldest
}

func soakFromEnvironment(t *testing.T) *soak {
	t.Helper()
	text := os.Getenv(soakEnv)
	if text == "" {
		return nil
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", soakEnv, err)
	}
	s := &soak{length: length, seed: rand.Uint64()}
	if text := os.Getenv(seedEnv); text != "" {
		if s.seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedEnv, err)
		}
	}
	return s
}

func (s *soak) run(t *testing.T, w *world, scripts []string, report *report) {
	t.Helper()
	t.Logf("soak for %v, seed %d: %s=%d repeats its order", s.length, s.seed, seedEnv, s.seed)
	random := rand.New(rand.NewPCG(s.seed, 0))
	for end := time.Now().Add(s.length); time.Now().Before(end); {
		random.Shuffle(len(scripts), func(i, j int) { scripts[i], scripts[j] = scripts[j], scripts[i] })
		for _, script := range scripts {
			if !runScript(t, w, script, report) {
				t.Fatalf("%s=%d repeats it", seedEnv, s.seed)
			}
			s.sample(t, w)
			if time.Now().After(end) {
				break
			}
		}
	}
	s.judge(t)
}

func (s *soak) sample(t *testing.T, w *world) {
	t.Helper()
	for _, host := range w.hosts {
		u, err := usageOf(host.DaemonPID())
		if err != nil {
			t.Fatal(err)
		}
		pins, _ := filepath.Glob(filepath.Join(w.lab.Config.Dir, "bpf", "*", "*")) // the pattern is well formed
		fast, err := host.FastPath(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		u.pins, u.fill = len(pins), fast.Fill
		if fast.Fill > fast.Room {
			t.Errorf("%d flows are in a map for %d", fast.Fill, fast.Room)
		}
		s.usage = append(s.usage, u)
	}
}

// usageOf reads what proc(5) tells of a process.
func usageOf(pid int) (usage, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	text, err := os.ReadFile(filepath.Join(dir, "statm"))
	if err != nil {
		return usage{}, err
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return usage{}, fmt.Errorf("%s/statm is %q", dir, text)
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return usage{}, err
	}
	files, err := os.ReadDir(filepath.Join(dir, "fd"))
	return usage{rss: pages * int64(os.Getpagesize()), files: len(files)}, err
}

// judge compares the second quarter of the soak with the last: the first is for
// warming up.
func (s *soak) judge(t *testing.T) {
	t.Helper()
	n := len(s.usage)
	early, late := s.usage[n/4:n/2], s.usage[3*n/4:]
	rss := [2]int64{median(early, func(u usage) int64 { return u.rss }), median(late, func(u usage) int64 { return u.rss })}
	files := [2]int64{median(early, func(u usage) int64 { return int64(u.files) }), median(late, func(u usage) int64 { return int64(u.files) })}
	pins := [2]int64{median(early, func(u usage) int64 { return int64(u.pins) }), median(late, func(u usage) int64 { return int64(u.pins) })}
	fill := [2]int64{median(early, func(u usage) int64 { return int64(u.fill) }), median(late, func(u usage) int64 { return int64(u.fill) })}
	t.Logf("%d pins of the fast path on all hosts, later %d; of a host's flows %d in its map, later %d", pins[0], pins[1], fill[0], fill[1])
	t.Logf("%d samples of a tulled: resident %d KiB, later %d KiB; descriptors %d, later %d", n, rss[0]>>10, rss[1]>>10, files[0], files[1])
	if n < scarceSamples {
		return
	}
	if float64(rss[1]) > float64(rss[0])*growthFactor+growthBytes {
		t.Errorf("resident memory of tulled grew from %d to %d KiB", rss[0]>>10, rss[1]>>10)
	}
	if files[1] > files[0]+growthFiles {
		t.Errorf("descriptors of tulled grew from %d to %d", files[0], files[1])
	}
	if pins[1] > pins[0] {
		t.Errorf("pins of the fast path grew from %d to %d", pins[0], pins[1])
	}
}

func median(list []usage, value func(usage) int64) int64 {
	values := make([]int64, len(list))
	for i, u := range list {
		values[i] = value(u)
	}
	slices.Sort(values)
	if len(values) == 0 {
		return 0
	}
	return values[len(values)/2]
}
