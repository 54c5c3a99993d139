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
// with both and with neither, in turns. It reports the ratio of the medians.
func BenchmarkRoundTrip(b *testing.B) {
	const rounds, trips = 8, 4000
	for _, f := range ip.Families() {
		b.Run(f.String(), func(b *testing.B) {
			l := labtest.New(b, lab.Config{Hosts: 2, Containers: 1, Families: []ip.Family{f}})
			if err := l.Up(b.Context()); err != nil {
				b.Fatal(err)
			}
			from, to := l.Hosts[0].Containers[0], l.Hosts[1].Containers[0]
			here, there := listen(b, from.Do, from.Addr.Of(f)), listen(b, to.Do, to.Addr.Of(f))
			go echo(there)
			for b.Loop() {
				medians := map[string][]time.Duration{}
				for range rounds {
					for _, filter := range []string{"on", "off"} {
						for _, host := range l.Hosts {
							if err := host.StopDaemon(); err != nil {
								b.Fatal(err)
							}
							if err := host.StartDaemon("--peer-filter="+filter, "--source-check="+filter); err != nil {
								b.Fatal(err)
							}
						}
						for _, host := range l.Hosts {
							if err := host.WaitReady(b.Context()); err != nil {
								b.Fatal(err)
							}
						}
						medians[filter] = append(medians[filter], medianTrip(b, here, there, trips))
					}
				}
				on, off := median(medians["on"]), median(medians["off"])
				b.ReportMetric(float64(on)/1e3, "µs-on")
				b.ReportMetric(float64(off)/1e3, "µs-off")
				b.ReportMetric(float64(on)/float64(off), "ratio")
			}
		})
	}
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

func medianTrip(b *testing.B, here, there *net.UDPConn, n int) time.Duration {
	b.Helper()
	buffer := make([]byte, 64)
	var took []time.Duration
	for len(took) < n {
		began := time.Now()
		if _, err := here.WriteToUDPAddrPort(buffer, addrOf(there)); err != nil {
			b.Fatal(err)
		}
		here.SetReadDeadline(began.Add(time.Second))
		if _, err := here.Read(buffer); err == nil {
			took = append(took, time.Since(began))
		}
	}
	return median(took)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
