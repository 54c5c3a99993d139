//go:build linux

package chaos

import (
	"errors"
	"fmt"
	"time"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

const (
	fastTimeout = 2 * time.Second
	fastLook    = 500 // packets that a host sends or receives
)

// awaitFast waits until nearly all packets of the streams take the fast path on every host, if there is one.
func (w *world) awaitFast() error {
	if !w.fast {
		return nil
	}
	was := map[*lab.Host]ip.FastPathState{}
	done := map[*lab.Host]bool{}
	return w.await(labtest.Limit(fastTimeout), func() error {
		var errs []error
		for _, host := range w.hosts {
			if done[host] {
				continue
			}
			is, err := host.FastPath(w.t.Context())
			if err != nil {
				return err
			}
			if !is.On || is.Failed != "" || is.Partly != "" || is.Unkept != "" || is.Ports != len(host.Containers) {
				errs = append(errs, fmt.Errorf("fast path of %s: %+v", host, is))
				continue
			}
			before, known := was[host]
			if !known {
				was[host], before = is, is
			}
			fast := is.Out.FastPackets + is.In.FastPackets - before.Out.FastPackets - before.In.FastPackets
			slow := is.Out.SlowPackets + is.In.SlowPackets - before.Out.SlowPackets - before.In.SlowPackets
			if fast+slow >= fastLook {
				was[host], done[host] = is, fast >= 9*slow
			}
			if !done[host] {
				errs = append(errs, fmt.Errorf("on %s %d packets are fast and %d slow", host, fast, slow))
			}
		}
		return errors.Join(errs...)
	})
}
