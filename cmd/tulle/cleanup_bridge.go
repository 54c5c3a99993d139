//go:build linux

package main

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"tulle/internal/docker"
	"tulle/ip"
	"tulle/ip/kernel/bridge"
)

// removeBridges removes the bridges that CNI made for Tulle's containers, or with dryRun says how. One with containers stays, for
// flanneld or a tulled to come may serve them.
func removeBridges(w io.Writer, dryRun bool) error {
	marked, err := bridge.ListMarked()
	if err != nil {
		return err
	}
	for _, b := range marked {
		if len(b.Ports) > 0 {
			fmt.Fprintf(w, "# bridge %s stays, for containers hang on it (%s): stop them and repeat this to remove it\n", shownName(b.Name), shownName(strings.Join(b.Ports, ", ")))
			continue
		}
		fmt.Fprintf(w, "ip link del dev %s\n", ip.ShellWord(b.Name))
		if dryRun {
			continue
		}
		if err := bridge.Remove(b.Name); err != nil {
			return err
		}
	}
	return nil
}

// keptByOthers tells which interfaces but Tulle's and the marked bridges have addresses of the network, and how they lose them.
func keptByOthers(snap ip.Snapshot, scope ip.Scope) ([]string, error) {
	marked, err := bridge.ListMarked()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, i := range snap.Interfaces {
		isIt := func(b bridge.Marked) bool { return b.Name == i.Name }
		if slices.Contains(scope.Links, i.Name) || slices.ContainsFunc(marked, isIt) {
			continue
		}
		remedy := "tulle docker network rm removes it, if it is Docker's"
		if i.Name == docker.DefaultBridge {
			remedy = "tulle docker unconfigure --restart gives it another address"
		}
		for _, a := range i.Addrs {
			if slices.ContainsFunc(scope.Networks, func(n netip.Prefix) bool { return ip.Contains(n, a.Prefix) }) {
				lines = append(lines, fmt.Sprintf("# %s keeps %s: %s", shownName(i.Name), a.Prefix, remedy))
			}
		}
	}
	return lines, nil
}
