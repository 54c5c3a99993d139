package doctor_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tulle/internal/doctor"
	"tulle/internal/doctor/doctortest"
	"tulle/internal/trouble"
)

var write = flag.Bool("write", false, "write docs/doctor.md")

const intro = `# Doctor

` + "`tulle doctor`" + ` finds what keeps containers of this host from reaching others: from the container over its bridge, the host's filters and the tunnel to the other
hosts. It reads and asks, and changes nothing; tulled need not run. The first broken link comes first, what follows from it is folded below, and each fix is a
command to paste, with the one that takes it back:

    1. h1: cni0 is down: its containers reach nobody (bridge.down)
         fix   ip link set dev cni0 up
         undo  ip link set dev cni0 down

A finding that is *likely* may have another reason. ` + "`tulle doctor NAME`" + ` looks into one container, by its name, id or address; without it the first %d are looked into.
` + "`--fix CODE`" + ` carries out the fixes of one code that can do no harm, ` + "`--json`" + ` is for programs. What could not be looked at is told, and never counts as well.
The exit code is 0 if nothing is wrong, 1 if something is, 2 for bad usage, and 3 if nothing wrong was found and not everything could be looked at.

## Faults

Each of these is brought about by a test on real hosts, must be the first finding, and must be gone once the fix is pasted as it is printed. OWN4 and OWN6 are
the subnets of the host, GATE4 and GATE6 their first addresses, PEER4 and PEER6 the subnets of a peer, HOST2 its address, CONTAINER4 that of a
container, ENTER is ` + "`nsenter --net=PATH`" + ` into the container.
This page is made by ` + "`make generate`" + `; all codes are in [troubles.md](troubles.md).

| fault | finding | fix |
|---|---|---|
`

const between = `
## Between two hosts

` + "`tulle doctor A B`" + ` looks at both hosts of the chain. A and B are each a node id, an address of a host or of a container, HOST/CONTAINER with the name or id of a
container there, or the name or id of one of this host. The other host is asked through etcd, so that it goes as well where the two do not reach each other: with the
settings that tulled has there, as TULLED_ETCD_ENDPOINTS. Its tulled answers with what it may read: the packaged unit lets it not enter containers, which is
told; ` + "`tulle doctor`" + ` there looks into them. One that runs with ` + "`--answer=off`" + ` says nothing. Most of it needs ` + "`--probe=on`" + ` on both hosts.

Commands are for the host that a finding names. ` + "`--fix`" + ` carries out those of this host alone. Each fault is brought about by a test between a container of h1, on which
the doctor is asked, and one of h2:

| fault | finding | fix |
|---|---|---|
`

// fixes is what the doctor prints, or says in words.
func fixes(code trouble.Code, commands []string) string {
	var fix []string
	for _, command := range commands {
		fix = append(fix, "`"+strings.TrimSpace(strings.ReplaceAll(command, "|", `\|`))+"`")
	}
	if len(fix) == 0 {
		return trouble.New(code, "", "").Remedy
	}
	return strings.Join(fix, "<br>")
}

func page() string {
	var b strings.Builder
	fmt.Fprintf(&b, intro, doctor.MaxContainers)
	for _, row := range doctortest.Rows() {
		var finding strings.Builder
		finding.WriteString("`" + string(row.Code) + "`")
		for _, c := range row.Follow {
			finding.WriteString(", and below it `" + string(c) + "`")
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", row.Fault, finding.String(), fixes(row.Code, row.Fix))
	}
	b.WriteString(between)
	for _, p := range doctortest.Pairs() {
		fmt.Fprintf(&b, "| %s | `%s` on %s | %s |\n", p.Fault, p.Code, p.On, fixes(p.Code, p.Fix))
	}
	b.WriteString(`
## Checks

In the order in which they are made: what comes first may be the cause of what comes later.

| code | well if |
|---|---|
`)
	for _, c := range doctor.Checks() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", c.Code, c.Title)
	}
	return b.String()
}

//go:generate go test -run TestPage . -write

// The page in docs says what the faults and checks say.
func TestPage(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "doctor.md")
	if *write {
		if err := os.WriteFile(path, []byte(page()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != page() {
		t.Errorf("%s is not what the faults say (%v): run make generate", path, err)
	}
	var seen []string
	for _, row := range doctortest.Rows() {
		if slices.Contains(seen, row.Fault) || len(row.Inject) == 0 || len(row.Fix) == 0 && len(row.ByHand) == 0 {
			t.Errorf("%q is there twice, or lacks something", row.Fault)
		}
		seen = append(seen, row.Fault)
	}
}
