package main

import (
	"fmt"
	"io"
	"strings"

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
			fmt.Fprintf(w, "# bridge %s stays, for containers hang on it (%s): stop them and repeat this to remove it\n", b.Name, strings.Join(b.Ports, ", "))
			continue
		}
		fmt.Fprintf(w, "ip link del dev %s\n", b.Name)
		if dryRun {
			continue
		}
		if err := bridge.Remove(b.Name); err != nil {
			return err
		}
	}
	return nil
}
