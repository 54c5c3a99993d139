//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tulle/internal/api"
	"tulle/internal/doctor"
	"tulle/internal/doctor/facts"
	"tulle/internal/settings"
	"tulle/internal/trouble"
)

// exitUntold says that nothing wrong was found, and that not everything could be looked at.
const exitUntold = 3

// doctorTime is how long the doctor may take for one host.
const doctorTime = 5 * time.Second

// doctorCommand is tulle doctor.
type doctorCommand struct {
	runDir, stateDir, subnetFile string
	socket, confDir, cniDir      string
	binDir, resolvConf           string
	fix                          string
	asJSON                       bool
	store                        storeFlags
}

func newDoctorCommand() *cobra.Command {
	var d doctorCommand
	cmd := &cobra.Command{
		Use:   "doctor [CONTAINER | A B]",
		Short: "Find what keeps containers from reaching each other, and what mends it",
		Long: `Find what keeps containers of this host from reaching others, and what mends it: the first broken link comes first, and what follows from it stands
below. CONTAINER is the name, id or address of one on this host; without it all are looked into. Each fix and undo is a command to paste; --fix carries
out those of one code, as far as they are safe. What could not be looked at is told, too.

With A and B the chain between them is looked at, on both their hosts: the other one is asked through etcd, which goes as well where they do not reach
each other, and answers unless its tulled runs with --answer=off. A and B are each a node id, an address of a host or a container, HOST/CONTAINER with a
node id and the container's name or id there, or the name or id of a container of this host.
Exit codes: 0 healthy, 1 something is wrong, 2 bad usage, 3 nothing wrong was found and not everything could be looked at.`,
		Example: "  tulle doctor\n  tulle doctor web-1\n  tulle doctor --fix bridge.down\n  tulle doctor web-1 h2/db-1\n  tulle doctor 10.5.1.2 10.5.2.7",
		Args:    cobra.MaximumNArgs(2),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			if d.fix != "" && d.asJSON {
				return usageError(fmt.Errorf("--fix and --json are given: want one of them"))
			}
			report, err := d.examine(cmd.Context(), args)
			if err != nil {
				return err
			}
			switch {
			case d.fix != "":
				return carryOut(cmd.Context(), cmd.OutOrStdout(), report, trouble.Code(d.fix))
			case d.asJSON:
				if err := printJSON(cmd.OutOrStdout(), report); err != nil {
					return err
				}
			default:
				printDiagnosis(cmd.OutOrStdout(), report)
			}
			return verdict(report)
		}).runE,
	}
	d.define(cmd)
	d.store.define(cmd)
	return cmd
}

// examine looks at this host, or at the chain between two ends.
func (d *doctorCommand) examine(ctx context.Context, args []string) (doctor.Report, error) {
	if len(args) == 2 {
		return d.between(ctx, args[0], args[1])
	}
	var q doctor.Question
	if len(args) == 1 {
		q.Of = args[0]
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	here := facts.Gather(ctx, d.doors(), q)
	if here.NoSuch {
		return doctor.Report{}, noSuchContainer(here.Node, q.Of)
	}
	return doctor.Diagnose(doctor.Case{Here: here}), nil
}

func (d *doctorCommand) define(cmd *cobra.Command) {
	flags := cmd.Flags()
	d.defineDoors(flags)
	flags.StringVar(&d.fix, "fix", "", "carry out the safe fixes of the findings with this `code`")
	flags.BoolVar(&d.asJSON, "json", false, "print JSON")
}

// defineDoors defines where what is looked at lies.
func (d *doctorCommand) defineDoors(flags *pflag.FlagSet) {
	settings.RunDir().Define(flags, &d.runDir)
	settings.StateDir().Define(flags, &d.stateDir)
	settings.SubnetFile().Define(flags, &d.subnetFile)
	flags.StringVar(&d.socket, "docker-socket", dockerSocket(), "Docker's unix `socket`")
	flags.StringVar(&d.confDir, "conf-dir", defaultConfDir, "`directory` of the runtimes' CNI configurations")
	flags.StringVar(&d.cniDir, "data-dir", defaultCNIData, "`directory` of what CNI plugins know of containers")
	flags.StringVar(&d.binDir, "bin-dir", defaultBinDir, "`directory` of the runtimes' CNI plugins")
	flags.StringVar(&d.resolvConf, "resolv-conf", "/etc/resolv.conf", "`file` that names the host's resolvers")
}

func (d *doctorCommand) doors() facts.Doors {
	client := api.NewClient(d.runDir)
	return facts.Doors{
		Status: client.Status, Peers: client.Peers, Wanted: client.Wanted, Absent: api.Absent, Version: version,
		StateDir: d.stateDir, SubnetFile: d.subnetFile, DockerSocket: d.socket, CNIConfDir: d.confDir, CNIDir: d.cniDir,
		CNIBin: []string{d.binDir, "/usr/lib/cni", "/usr/libexec/cni"}, ResolvConf: d.resolvConf,
	}
}

// verdict is what the exit code says.
func verdict(r doctor.Report) error {
	switch {
	case !r.Healthy():
		return &commandError{code: exitFailed}
	case len(r.Untold) > 0:
		return &commandError{code: exitUntold}
	}
	return nil
}

func printDiagnosis(w io.Writer, r doctor.Report) {
	for i, f := range r.Findings {
		if i > 0 {
			fmt.Fprintln(w)
		}
		printFinding(w, i+1, f)
	}
	switch {
	case r.Healthy() && len(r.Untold) > 0:
		fmt.Fprintln(w, "nothing wrong was found in what could be looked at, which is not all")
	case r.Healthy():
		fmt.Fprintf(w, "nothing wrong was found: %d checks\n", len(doctor.Checks()))
	}
	for _, f := range r.Advice {
		fmt.Fprintf(w, "advice: %s (%s)\n", shown(f.Text), f.Code)
	}
	for _, line := range untoldLines(r.Untold) {
		fmt.Fprintln(w, line)
	}
}

func printFinding(w io.Writer, number int, f doctor.Finding) {
	likely := ""
	if f.Sure == doctor.Likely {
		likely = ", likely"
	}
	fmt.Fprintf(w, "%d. %s: %s (%s%s)\n", number, shownName(f.Host), shown(f.Text), shownName(string(f.Code)), likely)
	line := func(what, text string) { fmt.Fprintf(w, "     %-5s %s\n", what, shown(text)) }
	for _, command := range f.Fix {
		line("fix", command)
	}
	if f.Remedy != "" {
		line("do", f.Remedy)
	}
	for _, command := range f.Undo {
		line("undo", command)
	}
	var follows []string
	for _, one := range f.Follows {
		follows = append(follows, fmt.Sprintf("%s on %s", one.Code, one.Host))
	}
	if len(follows) > 0 {
		slices.Sort(follows)
		line("follows:", strings.Join(slices.Compact(follows), ", "))
	}
}

// untoldLines say what could not be looked at, and why: a line for each reason.
func untoldLines(all []doctor.Untold) []string {
	var lines []string
	for _, u := range all {
		line := fmt.Sprintf("not told of %s: %s", shownName(u.Host), shown(u.Why))
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// carryOut runs the fixes of the findings with a code that are safe, and says what it did and what takes that back.
func carryOut(ctx context.Context, w io.Writer, r doctor.Report, code trouble.Code) error {
	var meant []doctor.Finding
	for _, f := range r.Findings {
		for _, one := range append([]doctor.Finding{f}, f.Follows...) {
			if one.Code == code {
				meant = append(meant, one)
			}
		}
	}
	if len(meant) == 0 {
		return fmt.Errorf("nothing to fix: no finding has the code %q", code)
	}
	left := 0
	for _, f := range meant {
		if !f.Safe || len(f.Fix) == 0 {
			left++
			fmt.Fprintf(w, "left %s: %s\n", shownName(f.Subject), "not safe to do unasked; tulle doctor prints what to do")
			continue
		}
		undo := func() {
			for _, command := range f.Undo {
				fmt.Fprintf(w, "undo %s\n", shown(command))
			}
		}
		for i, command := range f.Fix {
			// A shell reads what an operator would paste.
			if out, err := exec.CommandContext(ctx, "sh", "-c", command).CombinedOutput(); err != nil {
				if i > 0 {
					undo() // what was done before it
				}
				return fmt.Errorf("run %s: %w: %s", command, err, strings.TrimSpace(string(out)))
			}
			fmt.Fprintf(w, "did  %s\n", shown(command))
		}
		undo()
	}
	if left > 0 {
		return &commandError{code: exitFailed}
	}
	return nil
}
