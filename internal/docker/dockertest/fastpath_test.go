//go:build linux

package dockertest_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"tulle/internal/docker/dockertest"
	"tulle/internal/lab"
	"tulle/internal/lab/flowtest"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

// fastWorld is two hosts with a Docker network on the fabric, and the fast path on. On the first are the client and another container, on the second is
// the server.
type fastWorld struct {
	flowtest.World
	machines            []*dockertest.Machine
	web, beside, remote *container
}

// What rules, those of Docker among them, make of flows is the same with the fast path: and those that they leave alone are fast.
func TestFastPath(t *testing.T) {
	for i, e := range engines(t) {
		for _, backend := range []string{"vxlan", "host-gw"} {
			few := backend != "vxlan"
			if few && i > 0 { // an engine knows of no backend
				continue
			}
			if testing.Short() && (few || i > 0) { // as under the race detector, which sees nothing of the programs in the kernel
				continue
			}
			t.Run(e.name+"/"+backend, func(t *testing.T) {
				w := newFastWorld(t, e, backend)
				w.Few = few
				requireTransfer(t, w.web, w.remote)
				if !few {
					requireTransfer(t, w.remote, w.web)
				}
				w.Require(t, flowtest.Row{Name: "published", Hold: w.requirePublishedSlow})
				requireTransfer(t, w.remote, w.web)
			})
		}
	}
}

func newFastWorld(t *testing.T, e engine, backend string) *fastWorld {
	t.Helper()
	w := &fastWorld{}
	w.Lab = upLabOf(t, lab.Config{Hosts: 2, Backend: map[string]any{"Type": backend}})
	w.machines = newMachines(t, w.Lab, e)
	for _, m := range w.machines {
		m.Run(t, "tulle", "docker", "network", "create", "fabric")
		if e.nftables {
			writeDaemonJSON(t, m, `{"firewall-backend":"nftables", "bridge-accept-fwmark": "0x2000/0x2000"}`)
			m.RestartDocker(t)
		}
	}
	w.web, w.remote = runContainer(t, w.machines[0], "fabric", "web"), runContainer(t, w.machines[1], "fabric", "web")
	w.beside = &container{Machine: w.machines[0], name: "beside"}
	w.beside.Run(t, "docker", "run", "--detach", "--init", "--name="+w.beside.name, "--network=fabric", dockertest.Image)
	w.beside.inspect(t, "fabric")
	if st := labtest.FastPath(t, w.web.Host); !st.On {
		if os.Getenv("CI") == "" {
			t.Skipf("needs a fast path: %s", st.Reason)
		}
		t.Fatalf("the fast path is off: %s", st.Reason)
	}
	for _, c := range []*container{w.web, w.beside, w.remote} {
		c.Retry(t, healTimeout, "the fast path leads to "+c.name, func() error {
			want := map[bool]int{true: 2, false: 1}[c.Machine == w.machines[0]]
			if st := labtest.FastPath(t, c.Host); st.Ports != want || st.Failed != "" || st.Partly != "" {
				return fmt.Errorf("it is %+v, want %d ports", st, want)
			}
			return nil
		})
	}
	w.Client, w.Another, w.Server = w.web.open(t), w.beside.open(t), w.remote.open(t)
	return w
}

// requirePublishedSlow fetches from a published port: by the address of its host and by that of the bridge there, from a container of the other host, from
// one beside and from the container itself.
func (w *fastWorld) requirePublishedSlow(t *testing.T) {
	size, clients := 16<<20, []*container{w.remote, w.web, w.beside}
	if w.Few {
		size, clients = 4<<20, clients[:2]
	}
	env, err := w.machines[0].ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	w.web.exec(t, "dd", "if=/dev/urandom", "of=/www/part", "bs=1M", fmt.Sprintf("count=%d", size>>20))
	want := strings.Fields(w.web.exec(t, "md5sum", "/www/part"))[0]
	for _, f := range ip.Families() {
		for _, from := range clients {
			for _, by := range []netip.Addr{w.machines[0].Addr.Of(f), env.Gateway(f).Addr()} {
				fast := w.FastBytes(t, func() {
					url := fmt.Sprintf("http://%s/part", netip.AddrPortFrom(by, 8080))
					if got := from.exec(t, "sh", "-c", "timeout 20 wget -q -O- "+url+" | md5sum"); strings.Fields(got)[0] != want {
						t.Errorf("%s on %s from %s: checksum %s, want %s", url, from, from.name, got, want)
					}
				})
				if fast[0] > uint64(size/20) {
					t.Errorf("from %s on %s by %s: %d of %d bytes are fast on the host that translates, want none", from.name, from, by, fast[0], size)
				}
			}
		}
	}
}
