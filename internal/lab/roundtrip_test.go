//go:build linux

package lab_test

import (
	"errors"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

// tulledEnv is the path of another tulled whose rules BenchmarkRoundTrip compares with.
const tulledEnv = "TULLE_BENCH_TULLED"

// BenchmarkRoundTrip is what the rules of the peer filter and the source check cost: round trips between containers of two hosts over
// VXLAN with them, in turn with the rules of a tulled that has both off, or of that which the environment names, as it starts by default.
// One thread sends and receives on both sides, so that no program has to be woken: what is left is the way of the packets. It
// reports the medians, the median of the ratios of neighbouring turns, and that of the other rules against themselves.
func BenchmarkRoundTrip(b *testing.B) {
	const rounds, trips = 300, 300
	for _, f := range ip.Families() {
		b.Run(f.String(), func(b *testing.B) {
			l := labtest.New(b, lab.Config{Hosts: 2, Containers: 1, Families: []ip.Family{f}})
			if err := l.Up(b.Context()); err != nil {
				b.Fatal(err)
			}
			rules := map[string][]string{"on": rulesWith(b, l)}
			if other := os.Getenv(tulledEnv); other != "" {
				l.Config.Tulled = other
				rules["off"] = rulesWith(b, l)
			} else {
				rules["off"] = rulesWith(b, l, "--peer-filter=off", "--source-check=off")
			}
			rules["again"] = rules["off"]
			turns := []string{"on", "off", "again"}
			from, to := l.Hosts[0].Containers[0], l.Hosts[1].Containers[0]
			here, there := openSocket(b, from.Do, from.Addr.Of(f)), openSocket(b, to.Do, to.Addr.Of(f))
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for b.Loop() {
				took, ratios := map[string][]float64{}, map[string][]float64{}
				for round := range rounds {
					turn := map[string]float64{}
					for i := range turns {
						name := turns[(round+i)%len(turns)]
						for n, host := range l.Hosts {
							run(b, host, "flush ruleset\n"+rules[name][n], "nft", "-f", "-")
						}
						turn[name] = medianTrip(b, here, there, trips)
						took[name] = append(took[name], turn[name])
					}
					for name, µs := range turn {
						ratios[name] = append(ratios[name], µs/turn["off"])
					}
				}
				b.ReportMetric(median(took["on"]), "µs-on")
				b.ReportMetric(median(took["off"]), "µs-off")
				b.ReportMetric(median(ratios["on"]), "ratio")
				b.ReportMetric(median(ratios["again"]), "ratio-off-off")
			}
		})
	}
}

// rulesWith are the rules of each host that a daemon with the flags makes. It is stopped then.
func rulesWith(b *testing.B, l *lab.Lab, flags ...string) []string {
	b.Helper()
	for _, host := range l.Hosts {
		_ = host.StopDaemon() // the second time, none runs
		if err := host.StartDaemon(flags...); err != nil {
			b.Fatal(err)
		}
	}
	var rules []string
	for _, host := range l.Hosts {
		if err := host.WaitReady(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := host.StopDaemon(); err != nil {
			b.Fatal(err)
		}
		rules = append(rules, threeBytes.ReplaceAllString(run(b, host, "", "nft", "list", "ruleset"), "$1 & 255.255.255.0 == $2"))
	}
	return rules
}

// threeBytes finds what nft(8) would make other expressions of than tulled, which cost the kernel more.
var threeBytes = regexp.MustCompile(`(ip [sd]addr) ([0-9.]+)/24`)

// socket is a UDP socket with its address. It never waits.
type socket struct {
	fd   int
	addr unix.Sockaddr
}

func openSocket(b *testing.B, do func(func() error) error, addr netip.Addr) socket {
	b.Helper()
	var s socket
	if err := do(func() (err error) {
		family, local := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: addr.As16()})
		if addr.Is4() {
			family, local = unix.AF_INET, &unix.SockaddrInet4{Addr: addr.As4()}
		}
		if s.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		b.Cleanup(func() { unix.Close(s.fd) })
		if err = unix.Bind(s.fd, local); err == nil {
			s.addr, err = unix.Getsockname(s.fd)
		}
		return err
	}); err != nil {
		b.Fatal(err)
	}
	return s
}

// medianTrip is the median of n round trips, in microseconds.
func medianTrip(b *testing.B, here, there socket, n int) float64 {
	b.Helper()
	buffer := make([]byte, 64)
	pass := func(from, to socket) error {
		if err := unix.Sendto(from.fd, buffer, 0, to.addr); err != nil {
			return err
		}
		for began := time.Now(); time.Since(began) < time.Second; {
			if _, _, err := unix.Recvfrom(to.fd, buffer, 0); !errors.Is(err, unix.EAGAIN) {
				return err
			}
		}
		return unix.ETIMEDOUT
	}
	var took []float64
	for len(took) < n {
		began := time.Now()
		if err := errors.Join(pass(here, there), pass(there, here)); err != nil {
			b.Fatal(err)
		}
		took = append(took, float64(time.Since(began))/float64(time.Microsecond))
	}
	return median(took)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
