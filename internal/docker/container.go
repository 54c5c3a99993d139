package docker

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// Container is a container that runs.
type Container struct {
	ID, Name string
	Addrs    []netip.Addr
}

// Containers lists those that run.
func (e *Engine) Containers(ctx context.Context) ([]Container, error) {
	var all []struct {
		ID              string `json:"Id"`
		Names           []string
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress, GlobalIPv6Address string }
		}
	}
	if err := e.call(ctx, http.MethodGet, "/containers/json", nil, &all); err != nil {
		return nil, fmt.Errorf("list docker containers: %w", err)
	}
	list := make([]Container, len(all))
	for i, a := range all {
		list[i].ID = a.ID
		if len(a.Names) > 0 {
			list[i].Name = strings.TrimPrefix(a.Names[0], "/")
		}
		for _, n := range a.NetworkSettings.Networks {
			for _, text := range []string{n.IPAddress, n.GlobalIPv6Address} {
				if addr, err := netip.ParseAddr(text); err == nil {
					list[i].Addrs = append(list[i].Addrs, addr)
				}
			}
		}
	}
	return list, nil
}
