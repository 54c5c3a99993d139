//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"tulle/ip"
)

// outsideTimeout is how long a packet may take to the router.
const outsideTimeout = 5 * time.Second

// SourceOutside sends a packet from a container to the router, which is no part of the network, and returns the source
// address that it arrives with. Unless that is the container's own, to which the router has no route, the answer must arrive too.
func (l *Lab) SourceOutside(ctx context.Context, from *Container, family ip.Family) (netip.Addr, error) {
	router, err := l.Namespace("router")
	if err != nil {
		return netip.Addr{}, err
	}
	var outside net.PacketConn
	if err := router.Do(func() (err error) {
		outside, err = (&net.ListenConfig{}).ListenPacket(ctx, "udp", ":0")
		return err
	}); err != nil {
		return netip.Addr{}, fmt.Errorf("listen outside the network: %w", err)
	}
	defer outside.Close()
	conn, err := from.listen(family, 0)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	port := outside.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	to := netip.AddrPortFrom(l.RouterAddr(family, from.Host.Segment), port)
	if _, err := conn.WriteToUDPAddrPort([]byte("hello"), to); err != nil {
		return netip.Addr{}, fmt.Errorf("send from %s: %w", from, err)
	}
	deadline := time.Now().Add(outsideTimeout)
	if err := errors.Join(outside.SetDeadline(deadline), conn.SetDeadline(deadline)); err != nil {
		return netip.Addr{}, fmt.Errorf("await packets: %w", err)
	}
	_, answer, err := outside.ReadFrom(make([]byte, 16))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("receive from %s outside the network: %w", from, err)
	}
	source := answer.(*net.UDPAddr).AddrPort().Addr().Unmap()
	if source == from.Addr.Of(family) {
		return source, nil
	}
	if _, err := outside.WriteTo([]byte("hello yourself"), answer); err != nil {
		return source, fmt.Errorf("answer %s from outside the network: %w", from, err)
	}
	if _, _, err := conn.ReadFrom(make([]byte, 16)); err != nil {
		return source, fmt.Errorf("receive the answer from outside the network on %s: %w", from, err)
	}
	return source, nil
}
