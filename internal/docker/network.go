package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"tulle/ip"
	"tulle/subnet/flannel"
)

// Docker's default network, and its bridge unless "bridge" in daemon.json says otherwise.
const (
	DefaultNetwork = "bridge"
	DefaultBridge  = "docker0"
)

// label marks the networks that Tulle has made.
const label = "tulle.network"

// Options of the bridge driver.
const (
	optionMTU        = "com.docker.network.driver.mtu"
	optionMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	optionTrusted    = "com.docker.network.bridge.trusted_host_interfaces"
	optionBridge     = "com.docker.network.bridge.name"
)

// defaultMTU is a bridge's unless told otherwise, in bytes.
const defaultMTU = 1500

// Network is a bridge network of Docker's on this host.
type Network struct {
	Name       string         `json:"name"`
	Bridge     string         `json:"bridge"` // the name of its link
	Subnets    []netip.Prefix `json:"subnets"`
	MTU        int            `json:"mtu"` // bytes
	Masquerade bool           `json:"masquerade"`
	Containers []string       `json:"containers"` // attached and running
	Ours       bool           `json:"ours"`       // made by CreateNetwork
}

// apiNetwork is a network in the API's terms.
type apiNetwork struct {
	ID         string `json:"Id,omitempty"`
	Name       string
	Driver     string
	EnableIPv4 *bool `json:",omitempty"` // since API 1.47
	EnableIPv6 bool
	IPAM       struct{ Config []apiPool }
	Options    map[string]string
	Labels     map[string]string
	Containers map[string]struct{ Name string } `json:",omitempty"`
}

type apiPool struct{ Subnet, Gateway string }

// Networks lists the bridge networks, docker0's first.
func (e *Engine) Networks(ctx context.Context) ([]Network, error) {
	var all []apiNetwork
	if err := e.call(ctx, http.MethodGet, "/networks", nil, &all); err != nil {
		return nil, fmt.Errorf("list docker networks: %w", err)
	}
	list := []Network{}
	for _, a := range all {
		if a.Driver != "bridge" {
			continue
		}
		// Only an inspection names the containers.
		var whole apiNetwork
		if err := e.call(ctx, http.MethodGet, "/networks/"+a.ID, nil, &whole); isNotFound(err) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("inspect docker network %s: %w", a.Name, err)
		}
		list = append(list, whole.network())
	}
	sortKey := func(n Network) string {
		if n.Name == DefaultNetwork {
			return ""
		}
		return n.Name
	}
	slices.SortFunc(list, func(a, b Network) int { return cmp.Compare(sortKey(a), sortKey(b)) })
	return list, nil
}

func (a apiNetwork) network() Network {
	n := Network{
		Name: a.Name, Bridge: cmp.Or(a.Options[optionBridge], "br-"+a.ID[:min(12, len(a.ID))]), MTU: defaultMTU,
		Masquerade: a.Options[optionMasquerade] != "false", Containers: []string{}, Ours: a.Labels[label] != "",
	}
	if mtu, err := strconv.Atoi(a.Options[optionMTU]); err == nil && mtu > 0 {
		n.MTU = mtu
	}
	for _, pool := range a.IPAM.Config {
		// For docker0 Docker 20.10 gives the bridge's address here, with the length of the subnet.
		if p, err := netip.ParsePrefix(pool.Subnet); err == nil {
			n.Subnets = append(n.Subnets, p.Masked())
		}
	}
	slices.SortFunc(n.Subnets, ip.ComparePrefix)
	for _, c := range a.Containers {
		n.Containers = append(n.Containers, c.Name)
	}
	slices.Sort(n.Containers)
	return n
}

// CreateNetwork makes a network that holds the lease. On a Docker that drops what is routed to containers, the links
// named trusted are let through. One that is there already and holds the lease is left alone, and created is false.
func (e *Engine) CreateNetwork(ctx context.Context, name string, env flannel.Env, trusted []string) (created bool, err error) {
	networks, err := e.Networks(ctx)
	if err != nil {
		return false, err
	}
	for _, n := range networks {
		held := n.shared(env.Subnets)
		switch {
		case n.Name == name && n.Ours && n.holds(env.Subnets) && n.MTU == env.MTU:
			return false, nil
		case n.Name == name && n.Ours:
			return false, fmt.Errorf("network %s is there, with %s and MTU %d from an earlier lease: %s", name, join(n.Subnets), n.MTU, n.removal())
		case n.Name == name:
			return false, fmt.Errorf("network %s is there, and not made by tulle: choose another name", name)
		case len(held) > 0 && n.Name == DefaultNetwork:
			return false, fmt.Errorf("docker0 holds %s already, and only one network can: use docker0, "+
				"or give it another: tulle docker unconfigure --restart, or a bip in daemon.json", join(held))
		case len(held) > 0:
			return false, fmt.Errorf("network %s holds %s already, and only one network can: use it, or %s", n.Name, join(held), n.removal())
		}
	}
	request := e.request(name, env, trusted)
	if err := e.call(ctx, http.MethodPost, "/networks/create", request, nil); err != nil {
		return false, fmt.Errorf("create docker network %s: %w", name, err)
	}
	return true, nil
}

func (e *Engine) request(name string, env flannel.Env, trusted []string) apiNetwork {
	a := apiNetwork{
		Name: name, Driver: "bridge", EnableIPv6: env.Subnets.V6.IsValid(),
		Options: map[string]string{optionMTU: strconv.Itoa(env.MTU)},
		Labels:  map[string]string{label: "lease"},
	}
	if e.api.atLeast(1, 47) {
		v4 := env.Subnets.V4.IsValid()
		a.EnableIPv4 = &v4
	}
	if env.IPMasq && (env.Subnets.V4.IsValid() || a.EnableIPv4 != nil) {
		a.Options[optionMasquerade] = "false"
	}
	if e.Version.RoutesDirectly() && len(trusted) > 0 {
		a.Options[optionTrusted] = strings.Join(trusted, ":")
	}
	for _, f := range ip.Families() {
		if p := env.Subnets.Of(f); p.IsValid() {
			a.IPAM.Config = append(a.IPAM.Config, apiPool{p.String(), Gateway(p).String()})
		}
	}
	return a
}

// RemoveNetwork removes a network that CreateNetwork has made. One that is not there is removed.
func (e *Engine) RemoveNetwork(ctx context.Context, name string) error {
	networks, err := e.Networks(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(networks, func(n Network) bool { return n.Name == name })
	switch {
	case i < 0:
		return nil
	case !networks[i].Ours:
		return fmt.Errorf("network %s is not made by tulle: remove it with: docker network rm %s", name, name)
	case len(networks[i].Containers) > 0:
		return fmt.Errorf("network %s has running containers: stop or disconnect %s", name, strings.Join(networks[i].Containers, ", "))
	}
	if err := e.call(ctx, http.MethodDelete, "/networks/"+url.PathEscape(name), nil, nil); err != nil && !isNotFound(err) {
		return fmt.Errorf("remove docker network %s: %w", name, err)
	}
	return nil
}

// removal tells how to be rid of a network.
func (n Network) removal() string {
	command := "remove it with: docker network rm " + n.Name
	if n.Ours {
		command = "remove it with: tulle docker network rm " + n.Name
	}
	if len(n.Containers) > 0 {
		command = "stop or disconnect " + strings.Join(n.Containers, ", ") + " and " + command
	}
	return command
}

func isNotFound(err error) bool {
	var refused *refusalError
	return errors.As(err, &refused) && refused.code == http.StatusNotFound
}

func join(prefixes []netip.Prefix) string {
	texts := make([]string, len(prefixes))
	for i, p := range prefixes {
		texts[i] = p.String()
	}
	return strings.Join(texts, ",")
}
