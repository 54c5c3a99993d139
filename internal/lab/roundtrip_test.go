//go:build linux

package lab_test

import (
	"net"
	"slices"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

// BenchmarkRoundTrip is what the peer filter and the source check cost: round trips between containers of two hosts over VXLAN
// with both and with neither, in short turns. It reports the medians, and the median of the ratios of neighbouring turns.
func BenchmarkRoundTrip(b *testing.B) {
	const rounds, trips = 60, 500
	for _, f := range ip.Families() {
		b.Run(f.String(), func(b *testing.B) {
			l := labtest.New(b, lab.Config{Hosts: 2, Containers: 1, Families: []ip.Family{f}})
			if err := l.Up(b.Context()); err != nil {
				b.Fatal(err)
			}
			rules := map[string][]string{}
			for _, filter := range []string{"off", "on"} {
				rules[filter] = rulesWith(b, l, "--peer-filter="+filter, "--source-check="+filter)
			}
			from, to := l.Hosts[0].Containers[0], l.Hosts[1].Containers[0]
			here, there := listen(b, from.Do, from.Addr.Of(f)), listen(b, to.Do, to.Addr.Of(f))
			go echo(there)
			for b.Loop() {
				took := map[string][]float64{}
				var ratios []float64
				for round := range rounds {
					turn := map[string]float64{}
					for i := range 2 {
						filter := []string{"on", "off"}[(round+i)%2]
						for n, host := range l.Hosts {
							run(b, host, "flush ruleset\n"+rules[filter][n], "nft", "-f", "-")
						}
						turn[filter] = medianTrip(b, here, there, trips)
						took[filter] = append(took[filter], turn[filter])
					}
					ratios = append(ratios, turn["on"]/turn["off"])
				}
				b.ReportMetric(median(took["on"]), "µs-on")
				b.ReportMetric(median(took["off"]), "µs-off")
				b.ReportMetric(median(ratios), "ratio")
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
		rules = append(rules, run(b, host, "", "nft", "list", "ruleset"))
	}
	return rules
}

// echo sends back what comes until the socket is closed.
func echo(conn *net.UDPConn) {
	buffer := make([]byte, 64)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		_, _ = conn.WriteToUDPAddrPort(buffer[:n], from) // a lost answer is the other side's to notice
	}
}

// medianTrip is the median of n round trips, in microseconds.
func medianTrip(b *testing.B, here, there *net.UDPConn, n int) float64 {
	b.Helper()
	buffer := make([]byte, 64)
	var took []float64
	for len(took) < n {
		began := time.Now()
		if _, err := here.WriteToUDPAddrPort(buffer, addrOf(there)); err != nil {
			b.Fatal(err)
		}
		here.SetReadDeadline(began.Add(time.Second))
		if _, err := here.Read(buffer); err == nil {
			took = append(took, float64(time.Since(began))/float64(time.Microsecond))
		}
	}
	return median(took)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
