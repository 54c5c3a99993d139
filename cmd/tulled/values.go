package main

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"tulle/internal/settings"
	"tulle/ip"
	"tulle/subnet"
)

// fromEnvironment sets the flags that the command line left alone.
func fromEnvironment(fs *flag.FlagSet, lookup func(string) (string, bool)) error {
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var failed error
	fs.VisitAll(func(f *flag.Flag) {
		if given[f.Name] || failed != nil || f.Name == "version" {
			return
		}
		variable, value, ok := settings.FromEnvironment(f.Name, lookup)
		if !ok {
			return
		}
		if err := fs.Set(f.Name, value); err != nil {
			failed = fmt.Errorf("environment variable %s: invalid value %q for --%s: %w", variable, value, f.Name, err)
		}
	})
	return failed
}

func addrInto(into *netip.Addr) func(string) error {
	return func(s string) error {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("not an IP address")
		}
		*into = addr
		return nil
	}
}

func addrOf(f ip.Family, into *netip.Addr) func(string) error {
	return func(s string) error {
		addr, err := netip.ParseAddr(s)
		if err != nil || ip.FamilyOf(addr) != f || addr.Is4In6() || addr.Zone() != "" {
			return fmt.Errorf("not an %s address", f)
		}
		if !ip.BetweenHosts(addr) {
			return errors.New("not an address that other hosts reach")
		}
		*into = addr
		return nil
	}
}

func portInto(into *uint16) func(string) error {
	return func(s string) error {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return fmt.Errorf("not a port number: want 0 to 65535")
		}
		*into = uint16(n)
		return nil
	}
}

func switchInto(into *bool) func(string) error {
	return func(s string) error {
		if s != "on" && s != "off" {
			return fmt.Errorf("want on or off")
		}
		*into = s == "on"
		return nil
	}
}

// The modes of the fast path.
const (
	fastPathAuto = "auto"
	fastPathOn   = "on"
	fastPathOff  = "off"
)

func fastPathInto(into *string) func(string) error {
	return func(s string) error {
		if s != fastPathAuto && s != fastPathOn && s != fastPathOff {
			return fmt.Errorf("want auto, on or off")
		}
		*into = s
		return nil
	}
}

// prefixesInto adds to a list. An address is the prefix that holds it alone.
func prefixesInto(into *[]netip.Prefix) func(string) error {
	return func(s string) error {
		for _, text := range settings.List(s) {
			p, err := netip.ParsePrefix(text)
			if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
				p, err = netip.PrefixFrom(addr.WithZone(""), addr.BitLen()), nil
			}
			switch {
			case err != nil || p.Addr().Is4In6():
				return fmt.Errorf("%.64q is not a prefix such as 10.5.7.0/24", text)
			case p != p.Masked():
				return fmt.Errorf("%s is an address inside of a prefix: want %s, or the address without the length", p, p.Masked())
			}
			if !slices.Contains(*into, p) {
				*into = append(*into, p)
			}
		}
		return nil
	}
}

// ttlLeast is what a lease must last for at least, so that a restart of etcd or of this program does not end it.
const ttlLeast = 5 * time.Second

func ttlInto(into *time.Duration) func(string) error {
	return func(s string) error {
		if s == "none" {
			*into = subnet.Forever
			return nil
		}
		ttl, err := time.ParseDuration(s)
		if err != nil || ttl < ttlLeast {
			return fmt.Errorf("want a duration of %v or more, such as 12h, or none", ttlLeast)
		}
		*into = ttl
		return nil
	}
}

func renewMargin(s string) error {
	if n, err := strconv.Atoi(s); err != nil || n < 1 || n > 1439 {
		return fmt.Errorf("want 1 to 1439 minutes")
	}
	return nil
}
