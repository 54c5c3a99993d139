//go:build linux

package fastpath_test

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"tulle/ip"
)

// run runs a program in the namespace and returns what it prints.
func (n *node) run(input, program string, args ...string) string {
	n.t.Helper()
	out, err := n.try(input, program, args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

func (n *node) try(input, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(n.t.Context(), program, args...)
	var output, complaint strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &output, &complaint
	if err := n.Do(cmd.Start); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s: %w: %s%s", cmd, err, &complaint, input)
	}
	return output.String(), nil
}

// nft loads rules, in which FAMILY stands for ip or ip6.
func (n *node) nft(f ip.Family, rules string) {
	n.t.Helper()
	n.run(strings.ReplaceAll(rules, "FAMILY", nftFamily(f)), "nft", "-f", "-")
}

func nftFamily(f ip.Family) string {
	return ip.Dual[string]{V4: "ip", V6: "ip6"}.Of(f)
}

// witness counts the packets that the host forwards, of those that match: what takes the fast path is not among them. It may drop them.
type witness struct {
	*node
	table string
}

func (h *host) witness(match string, verdict ...string) witness {
	h.t.Helper()
	w := witness{h.node, "witness"}
	h.nft(h.world.family, strings.NewReplacer("TABLE", w.table, "MATCH", match, "VERDICT", strings.Join(verdict, "")).Replace(`table FAMILY TABLE
delete table FAMILY TABLE
table FAMILY TABLE {
	counter seen { }
	chain forward { type filter hook forward priority -400; MATCH counter name seen VERDICT
	}
}
`))
	return w
}

// count is how many there were.
func (w witness) count(f ip.Family) int {
	w.t.Helper()
	out := w.run("", "nft", "list", "counter", nftFamily(f), w.table, "seen")
	m := regexp.MustCompile(`packets (\d+)`).FindStringSubmatch(out)
	if m == nil {
		w.t.Fatalf("no counter in %s", out)
	}
	n, err := strconv.Atoi(m[1])
	must(w.t, err)
	return n
}

// udpOfLength matches UDP packets by the length of their payload.
func udpOfLength(n int) string { return fmt.Sprintf("udp length %d", n+8) }
