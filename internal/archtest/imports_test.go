package archtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// layer says what a package's product code may import, besides the packages above it in its own path and the leaves.
type layer struct {
	pkg   string   // and what is below it, unless that has a layer of its own
	below []string // packages of this module; /... includes what is below
	std   bool     // besides these only the standard library
}

// leaves are small packages that import nothing of Tulle.
func leaves() []string {
	return []string{"internal/atomicfile", "internal/backoff", "internal/logthrottle", "internal/printable", "internal/regularfile", "internal/sealed", "internal/settings", "internal/trouble"}
}

const layersWhy = "the direction is cmd → internal/agent → internal/fabric → backend → subnet/flannel → subnet → ip; what decides is kept apart from what acts, " +
	"so that decisions are tested without a kernel or a store"

func layers() []layer {
	return []layer{
		{pkg: "ip", std: true},
		{pkg: "ip/kernel", below: []string{"internal/netns", "ip/kernel/notify", "ip/kernel/xtables"}},
		{pkg: "ip/iptest"},
		{pkg: "subnet", below: []string{"ip"}, std: true},
		{pkg: "subnet/flannel", below: []string{"ip", "internal/atomicfile", "internal/regularfile"}, std: true},
		{pkg: "subnet/etcd", below: []string{"ip", "subnet/flannel", "internal/etcdtransport"}},
		{pkg: "subnet/subnettest", below: []string{"ip", "subnet/flannel"}},
		{pkg: "backend", below: []string{"ip", "subnet", "subnet/flannel"}, std: true},
		{pkg: "cni-plugin", below: []string{"ip", "ip/kernel/bridge", "subnet", "subnet/flannel", "internal/netns", "internal/holder"}},
		{pkg: "internal", below: []string{"ip", "subnet", "subnet/flannel"}},
		{pkg: "internal/agent", below: []string{"ip", "internal/fabric", "internal/hostfiles", "internal/invariant", "internal/probe"}},
		{pkg: "internal/fabric", below: []string{"ip", "subnet", "subnet/flannel", "backend", "internal/decision", "internal/hostfiles", "internal/invariant", "internal/probe"}},
		{pkg: "internal/doctor", below: []string{"ip"}},
		{pkg: "internal/doctor/facts", below: []string{"ip", "ip/kernel/inspect", "subnet", "subnet/flannel", "internal/agent", "internal/docker", "internal/fabric", "internal/holder", "internal/hostfiles", "internal/netns"}},
		{pkg: "internal/doctor/far", below: []string{"subnet", "internal/doctor"}},
		{pkg: "internal/etcdtransport"},
		{pkg: "internal/decision", below: []string{"ip", "subnet", "backend"}, std: true},
		{pkg: "internal/backends", below: []string{"subnet", "subnet/flannel", "backend/..."}},
		{pkg: "internal/api", below: []string{"ip", "subnet", "internal/agent", "internal/fabric", "internal/hostfiles", "internal/probe"}},
		{pkg: "internal/web", below: []string{"ip", "subnet", "internal/agent", "internal/backends", "internal/bugreport"}},
		{pkg: "internal/lab", below: []string{"ip", "subnet", "subnet/etcd", "subnet/flannel", "internal/netns", "internal/etcdmember", "internal/api"}},
		{pkg: "internal/bench", below: []string{"ip", "subnet", "subnet/etcd", "subnet/flannel", "internal/agent", "internal/bench/traffic", "internal/etcdmember", "internal/lab", "internal/netns"}},
		{pkg: "internal/bench/traffic"},
		{pkg: "cmd", below: []string{"ip/...", "subnet/...", "backend/...", "internal/...", "cni-plugin"}},
	}
}

// gate says who may import something.
type gate struct {
	what  []string // import paths, with what is below them
	only  []string // packages, with what is below them
	tests bool     // and all tests
	why   string
}

func gates() []gate {
	return []gate{{
		what: []string{"github.com/vishvananda", "github.com/mdlayher", "github.com/google/nftables"},
		only: []string{"ip/kernel", "internal/bench", "internal/lab"},
		why:  "the kernel has one door, ip.Kernel; a lab builds the world around a host, which is no host's state",
	}, {
		what: []string{"github.com/cilium/ebpf"},
		only: []string{"ip/kernel/fastpath"},
		why:  "bpf(2) has one door",
	}, {
		what: []string{"github.com/cilium/ebpf/rlimit"},
		why:  "its init calls bpf(2), which kills a process whose filter of system calls does not know it",
	}, {
		what: []string{"go.etcd.io/etcd/server"},
		only: []string{"internal/etcdmember"},
		why:  "the server makes a binary half as large again; only the tool that runs a member carries it",
	}, {
		what:  []string{"go.etcd.io", "google.golang.org/grpc"},
		only:  []string{"subnet/etcd", "internal/etcdtransport", "internal/etcdmember"},
		tests: true,
		why:   "everything else sees a store through subnet.Store",
	}, {
		what: []string{"github.com/spf13"},
		only: []string{"cmd/tulle"},
		why:  "the daemon's flags are flannel's, single or double dash, which package flag does",
	}, {
		what:  []string{"os/exec"},
		only:  []string{"internal/bench", "internal/lab", "cmd/tulle"},
		tests: true,
		why:   "the daemon runs no other program: none to be missing, old, slow or hijacked",
	}, {
		what: []string{"log", "log/syslog"},
		why:  "logging is structured, by log/slog",
	}, {
		what: []string{"log/slog"},
		only: []string{"cmd", "cni-plugin", "internal", "subnet/etcd", "ip/kernel"},
		why:  "what is pure returns what it has to say",
	}, {
		what: []string{"github.com/chromedp"},
		only: []string{"internal/web/webtest"},
		why:  "who tests something else does not compile a browser's protocol",
	}, {
		what: []string{"C"},
		why:  "binaries are static and build without a C compiler",
	}, {
		what:  []string{"testing", "github.com/google/go-cmp", "pgregory.net/rapid", "github.com/cockroachdb/datadriven"},
		tests: true,
		why:   "test code stays out of binaries: packages whose names end in test hold what tests share",
	}, {
		what:  []string{module + "/ip/iptest", module + "/subnet/subnettest", module + "/internal/hostfiles/hostfilestest", module + "/internal/netns/netnstest", module + "/internal/etcdmember/etcdmembertest", module + "/internal/docker/dockertest", module + "/internal/doctor/doctortest", module + "/internal/web/webtest", module + "/internal/lab/flowtest", module + "/internal/lab/labtest", module + "/internal/lab/machinetest"},
		tests: true,
		why:   "test code stays out of binaries",
	}}
}

// reach says what a program must not contain, however indirectly.
type reach struct {
	from   string
	never  []string
	except []string
	why    string
}

func reaches() []reach {
	return []reach{{
		from:  "cmd/tulled",
		never: []string{"internal/bench", "internal/lab", "internal/etcdmember"},
		why:   "the daemon is small and changes the world of its own host only",
	}, {
		from:   "cmd/tulle-cni",
		never:  []string{"subnet/etcd", "internal/etcdtransport", "ip/kernel", "internal/agent"},
		except: []string{"ip/kernel/bridge"},
		why:    "the plugin starts once per container; it needs the subnet file, and of the kernel the bridge alone",
	}}
}

func TestLayers(t *testing.T) {
	for _, f := range loadTree(t).files {
		for _, imported := range f.imports() {
			if !f.test && !layerAllows(f.dir, imported) {
				t.Errorf("%s imports %s: %s", f.path, imported, layersWhy)
			}
		}
	}
}

func TestGates(t *testing.T) {
	for _, f := range loadTree(t).files {
		for _, imported := range f.imports() {
			if g, ok := gateOf(imported); ok && !g.allows(f.dir, f.test) {
				t.Errorf("%s imports %s: %s", f.path, imported, g.why)
			}
		}
	}
}

func TestReach(t *testing.T) {
	direct := map[string]map[string]bool{}
	for _, f := range loadTree(t).files {
		for _, imported := range f.imports() {
			if pkg, ok := strings.CutPrefix(imported, module+"/"); ok && !f.test {
				if direct[f.dir] == nil {
					direct[f.dir] = map[string]bool{}
				}
				direct[f.dir][pkg] = true
			}
		}
	}
	for _, r := range reaches() {
		for pkg, chain := range closure(direct, r.from) {
			if within(pkg, r.never...) && !within(pkg, r.except...) {
				t.Errorf("%s contains %s, by way of %s: %s", r.from, pkg, strings.Join(chain, " → "), r.why)
			}
		}
	}
}

func TestImportRulesBite(t *testing.T) {
	for _, c := range []struct {
		pkg      string
		imported string
		test     bool
		want     bool
	}{
		{pkg: "ip", imported: "net/netip", want: true},
		{pkg: "ip", imported: module + "/subnet"},
		{pkg: "ip", imported: "golang.org/x/sys/unix"},
		{pkg: "ip/kernel", imported: "github.com/vishvananda/netlink", want: true},
		{pkg: "ip/kernel", imported: module + "/subnet"},
		{pkg: "backend/vxlan", imported: module + "/backend", want: true},
		{pkg: "backend/vxlan", imported: module + "/backend/hostgw"},
		{pkg: "backend/vxlan", imported: module + "/ip/kernel"},
		{pkg: "subnet", imported: module + "/subnet/etcd"},
		{pkg: "subnet", imported: module + "/subnet/flannel"},
		{pkg: "subnet/flannel", imported: module + "/subnet", want: true},
		{pkg: "subnet/flannel", imported: module + "/subnet/etcd"},
		{pkg: "backend/vxlan", imported: module + "/subnet/flannel", want: true},
		{pkg: "internal/decision", imported: module + "/subnet/flannel"},
		{pkg: "subnet/etcd", imported: "go.etcd.io/etcd/client/v3", want: true},
		{pkg: "subnet/etcd", imported: "go.etcd.io/etcd/server/v3/embed"},
		{pkg: "subnet/etcd", imported: "go.etcd.io/etcd/server/v3/embed", test: true},
		{pkg: "internal/etcdtransport", imported: "go.etcd.io/etcd/client/v3", want: true},
		{pkg: "internal/etcdtransport", imported: module + "/" + leaves()[0], want: true},
		{pkg: "internal/etcdtransport", imported: module + "/subnet"},
		{pkg: "internal/etcdtransport", imported: module + "/ip"},
		{pkg: "internal/agent", imported: module + "/backend/vxlan"},
		{pkg: "internal/agent", imported: module + "/ip/kernel"},
		{pkg: "internal/agent", imported: module + "/ip/iptest"},
		{pkg: "internal/agent", imported: module + "/ip/iptest", test: true, want: true},
		{pkg: "internal/agent", imported: "os/exec"},
		{pkg: "internal/agent", imported: "os/exec", test: true, want: true},
		{pkg: "internal/agent", imported: "github.com/vishvananda/netlink", test: true},
		{pkg: "internal/new", imported: module + "/internal/agent"},
		{pkg: "internal/new", imported: module + "/" + leaves()[0], want: true},
		{pkg: leaves()[0], imported: module + "/ip"},
		{pkg: "backend/vxlan", imported: module + "/" + leaves()[0]},
		{pkg: "internal/new", imported: "log/slog", want: true},
		{pkg: "internal/new", imported: "log"},
		{pkg: "cmd/tulled", imported: "github.com/spf13/cobra"},
		{pkg: "cmd/tulled", imported: module + "/internal/agent", want: true},
		{pkg: "cmd/tulle", imported: "github.com/spf13/cobra", want: true},
	} {
		g, gated := gateOf(c.imported)
		got := (c.test || layerAllows(c.pkg, c.imported)) && (!gated || g.allows(c.pkg, c.test))
		if got != c.want {
			t.Errorf("%s may import %s (test: %t) = %t, want %t", c.pkg, c.imported, c.test, got, c.want)
		}
	}
	chain := closure(map[string]map[string]bool{"a": {"b": true}, "b": {"c": true}}, "a")["c"]
	if fmt.Sprint(chain) != "[a b c]" {
		t.Errorf("closure finds c by way of %v, want [a b c]", chain)
	}
}

func layerAllows(pkg, imported string) bool {
	var l layer
	for _, candidate := range layers() {
		if within(pkg, candidate.pkg) && len(candidate.pkg) >= len(l.pkg) {
			l = candidate
		}
	}
	own, ok := strings.CutPrefix(imported, module+"/")
	if !ok {
		return !l.std || !strings.Contains(imported, ".")
	}
	if slices.Contains(leaves(), pkg) {
		return false
	}
	return within(pkg, own) || !l.std && slices.Contains(leaves(), own) || slices.ContainsFunc(l.below, func(below string) bool {
		tree, whole := strings.CutSuffix(below, "/...")
		return own == below || whole && within(own, tree)
	})
}

// gateOf returns the narrowest gate of an import.
func gateOf(imported string) (found gate, ok bool) {
	longest := -1
	for _, g := range gates() {
		for _, what := range g.what {
			if within(imported, what) && len(what) > longest {
				found, ok, longest = g, true, len(what)
			}
		}
	}
	return found, ok
}

func (g gate) allows(pkg string, test bool) bool { return g.tests && test || within(pkg, g.only...) }

// within reports whether pkg is one of the roots or lies below one.
func within(pkg string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool { return pkg == root || strings.HasPrefix(pkg, root+"/") })
}

// closure returns everything that from imports, directly or not, with the shortest chain of imports to it.
func closure(direct map[string]map[string]bool, from string) map[string][]string {
	chains := map[string][]string{from: {from}}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		for _, next := range slices.Sorted(maps.Keys(direct[queue[0]])) {
			if chains[next] == nil {
				chains[next] = append(slices.Clone(chains[queue[0]]), next)
				queue = append(queue, next)
			}
		}
	}
	return chains
}
