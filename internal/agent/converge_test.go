package agent

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tulle/ip"
	"tulle/subnet/flannel"
)

func TestHostsConverge(t *testing.T) {
	for name, config := range map[string]string{
		"vxlan":   dualConfig,
		"host-gw": strings.Replace(dualConfig, "vxlan", "host-gw", 1),
		"direct":  strings.Replace(dualConfig, `"vxlan"`, `"vxlan","DirectRouting":true`, 1),
		"ipip":    `{"Network":"10.5.0.0/16","Backend":{"Type":"ipip"}}`,
		"ipv4":    `{"Network":"10.5.0.0/16"}`,
		"ipv6":    `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:5::/48"}`,
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, config, 4, func(t *testing.T, w *world) {
				w.start()
				w.converged(soon)
				for _, h := range w.hosts {
					env, err := flannel.ReadEnv(filepath.Join(h.dir, "subnet.env"))
					if err != nil {
						t.Fatal(err)
					}
					st := h.agent.Status()
					if !env.IPMasq || env.MTU != st.Of("").MTU || !slices.Equal(prefixes(env.Subnets), st.Of("").Lease.Subnets) {
						t.Errorf("subnet file %+v does not match lease %+v, MTU %d", env, st.Of("").Lease, st.Of("").MTU)
					}
				}
			})
		})
	}
}

func TestRestartChangesNothing(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[1]
		was, lease := h.owned(), h.agent.Status().Of("").Lease
		h.stop()
		h.kernel.Refuse(func(op ip.Op) error {
			t.Errorf("restart changes the kernel: %s", op)
			return nil
		})
		h.start()
		w.converged(soon)
		if got := h.agent.Status().Of("").Lease; !slices.Equal(got.Subnets, lease.Subnets) {
			t.Errorf("subnets %v after the restart, were %v", got.Subnets, lease.Subnets)
		}
		if diff := cmp.Diff(was.String(), h.owned().String()); diff != "" {
			t.Error(diff)
		}
	})
}
