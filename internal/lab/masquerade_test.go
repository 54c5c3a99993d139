//go:build linux

package lab_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"tulle/internal/lab"
)

// Traffic that leaves the overlay has its host's address; TestBackends shows
// that traffic inside keeps its own.
func TestTrafficLeavingTheNetworkIsMasqueraded(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1})
	router, err := l.Namespace("router")
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range l.Config.Families {
		var outside *net.UDPConn
		if err := router.Do(func() (err error) {
			outside, err = net.ListenUDP("udp", nil)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer outside.Close()
		port := outside.LocalAddr().(*net.UDPAddr).AddrPort().Port()

		container := l.Hosts[0].Containers[0]
		to := netip.AddrPortFrom(l.RouterAddr(family, 1), port)
		if err := container.Do(func() error {
			conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write([]byte("hello"))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		outside.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, from, err := outside.ReadFromUDPAddrPort(make([]byte, 16))
		if err != nil {
			t.Errorf("%s: nothing arrives outside the network: %v", family, err)
			continue
		}
		if got, want := from.Addr().Unmap(), l.Hosts[0].Addr.Of(family); got != want {
			t.Errorf("%s source outside the network = %s, want the host's %s", family, got, want)
		}
	}
}
