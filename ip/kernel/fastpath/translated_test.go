//go:build linux

package fastpath_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"tulle/ip"
)

const (
	servicePort = 7001
	clientPort  = 7100
)

// Addresses are translated on the client's host or on the server's, of the server or of the client. The same client talks to the same server by the
// same ports directly.
func TestTranslatedFlows(t *testing.T) {
	for name, scenario := range translations() {
		t.Run(name, func(t *testing.T) { holds(t, kinds(), scenario) })
	}
}

func translations() map[string]func(*world) error {
	return map[string]func(*world) error{
		"service on the client's host": func(w *world) error {
			service := ip.Dual[netip.Addr]{V4: netip.MustParseAddr("10.96.0.1"), V6: netip.MustParseAddr("fd10:96::1")}.Of(w.family)
			return w.service(w.hosts[0], service)
		},
		"service on the server's host": func(w *world) error { return w.service(w.hosts[1], nth(w.hosts[1].subnet, 200)) },
		"masquerade":                   masquerade,
	}
}

// service leads a second address to a server.
func (w *world) service(at *host, addr netip.Addr) error {
	client, server := w.hosts[0].containers[0], w.hosts[1].containers[1]
	direct, service := netip.AddrPortFrom(server.addr, servicePort), netip.AddrPortFrom(addr, servicePort)
	at.nft(w.family, strings.NewReplacer("ADDR", addr.String(), "PORT", fmt.Sprint(servicePort), "DIRECT", direct.String()).Replace(`table FAMILY service {
	chain prerouting { type nat hook prerouting priority dstnat; FAMILY daddr ADDR meta l4proto { tcp, udp } th dport PORT dnat to DIRECT
	}
}
`))
	echo(server)
	if err := talk(dial(client, clientPort, service), dial(client, clientPort, direct)); err != nil {
		return err
	}
	return tcpTalk(server, []*container{client, client}, []netip.AddrPort{service, direct})
}

// masquerade gives a container the address of another one on its way out.
func masquerade(w *world) error {
	one, two, server := w.hosts[0].containers[0], w.hosts[0].containers[1], w.hosts[1].containers[1]
	w.hosts[0].nft(w.family, strings.NewReplacer("FROM", two.addr.String(), "AS", one.addr.String(), "TO", server.addr.String()).Replace(`table FAMILY masquerading {
	chain postrouting { type nat hook postrouting priority srcnat - 10; FAMILY saddr FROM FAMILY daddr TO snat to AS
	}
}
`))
	direct := netip.AddrPortFrom(server.addr, servicePort)
	echo(server)
	if err := talk(dial(two, clientPort, direct), dial(one, clientPort, direct)); err != nil {
		return err
	}
	return tcpTalk(server, []*container{two, one}, []netip.AddrPort{direct, direct})
}

// echo answers each UDP packet with itself.
func echo(c *container) {
	conn := listen(c, servicePort)
	go func() {
		for packet := make([]byte, 2048); ; {
			n, from, err := conn.ReadFromUDPAddrPort(packet)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = conn.WriteToUDPAddrPort(packet[:n], from)
			}
		}
	}()
}

func dial(c *container, local uint16, to netip.AddrPort) *net.UDPConn {
	c.t.Helper()
	dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.addr, local)), Control: reusing().Control}
	var conn net.Conn
	must(c.t, c.Do(func() (err error) {
		conn, err = dialer.DialContext(c.t.Context(), "udp", to.String())
		return err
	}))
	c.t.Cleanup(func() { conn.Close() })
	return conn.(*net.UDPConn)
}

// talk sends numbered packets to the same server over several sockets, one after the other, and has each get its own back.
func talk(conns ...*net.UDPConn) error {
	const number = 3000 // takes longer than the life of an admission
	for i, conn := range conns {
		if !eventually(healTimeout, func() bool {
			_, err := conn.Write([]byte{byte(i)})
			if err == nil {
				err = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			}
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
			}
			return err == nil
		}) {
			return fmt.Errorf("nothing comes back from %s", conn.RemoteAddr())
		}
	}
	var work sync.WaitGroup
	failed := make([]error, len(conns))
	for i, conn := range conns {
		if err := conn.SetReadDeadline(time.Now().Add(number*streamPeriod + healTimeout)); err != nil {
			return err
		}
		work.Go(func() {
			got, strange := make([]bool, number), 0
			left := number
			for packet := make([]byte, 64); left > 0; {
				n, err := conn.Read(packet)
				if errors.Is(err, net.ErrClosed) || isTimeout(err) {
					break
				}
				number := binary.BigEndian.Uint32(packet[1:])
				switch {
				case err != nil || n != streamLength:
				case packet[0] != byte(i):
					strange++
				case !got[number]:
					got[number] = true
					left--
				}
			}
			if left > 0 || strange > 0 {
				failed[i] = fmt.Errorf("of %d packets from %s to %s, %d do not come back, and %d come that are another's", number, conn.LocalAddr(), conn.RemoteAddr(), left, strange)
			}
		})
	}
	n := 0
	ticker := time.NewTicker(streamPeriod)
	defer ticker.Stop()
	for begin := time.Now(); n < number; <-ticker.C {
		for ; n < min(number, int(time.Since(begin)/streamPeriod)); n++ {
			for i, conn := range conns {
				packet := make([]byte, streamLength)
				packet[0] = byte(i)
				binary.BigEndian.PutUint32(packet[1:], uint32(n))
				_, _ = conn.Write(packet) // what is not sent does not come back
			}
		}
	}
	work.Wait()
	return errors.Join(failed...)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// tcpTalk makes connections to a server from several clients by several addresses, all by the same ports, and uses all at once.
func tcpTalk(server *container, clients []*container, by []netip.AddrPort) error {
	var work sync.WaitGroup
	failed := make([]error, len(clients))
	for i, client := range clients {
		conn, err := connect(client, server, servicePort, by[i], clientPort)
		if err != nil {
			return fmt.Errorf("connect %s to %s: %w", client.addr, by[i], err)
		}
		work.Go(func() {
			n, err := conn.roundTrips(2 * time.Second)
			if err != nil {
				failed[i] = fmt.Errorf("connection of %s by %s: after %d round trips: %w", client.addr, by[i], n, err)
			}
		})
	}
	work.Wait()
	return errors.Join(failed...)
}
