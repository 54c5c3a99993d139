//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tulle/internal/api"
	"tulle/internal/bugreport"
	"tulle/internal/printable"
	"tulle/internal/regularfile"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// partTime bounds how long one part of a report is waited for.
const partTime = 5 * time.Second

func newBugReportCommand() *cobra.Command {
	r := &reporter{}
	var output string
	var mask bool
	cmd := &cobra.Command{
		Use:   "bugreport",
		Short: "Write how this host stands into an archive, for a bug report",
		Long: `Write how this host stands into an archive, for a bug report: versions, status, peers, what tulle doctor finds, metrics, the end of tulled's log, what the kernel has and what is
wanted of it, the subnet file, and configuration and leases from the store. What cannot be had is named in it. It holds no passwords and no keys. With --mask,
addresses outside the containers' network are given other names, the same one always the same; names of hosts stay. Look at it before you send it.`,
		Example: `  tulle bugreport --mask
  tar -xzOf tulle-bugreport.tar.gz | less`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			file, err := regularfile.Create(output, 0o600)
			if errors.Is(err, os.ErrExist) {
				return usageError(fmt.Errorf("%s exists: remove it, or name another file with --output", output))
			}
			if err != nil {
				return usageError(fmt.Errorf("make the archive, or name another file with --output: %w", err))
			}
			hide := []func([]byte) []byte{bugreport.HideCredentials}
			report := r.collect(cmd.Context())
			if mask {
				hide = append(hide, bugreport.NewMask(r.inside).Hide)
			}
			err = errors.Join(report.Write(file, "tulle-bugreport", time.Now(), hide...), file.Close())
			if err != nil {
				return errors.Join(err, os.Remove(output))
			}
			return printBugReport(cmd.OutOrStdout(), output, report, mask)
		}).runE,
	}
	r.store.define(cmd)
	flags := cmd.Flags()
	r.doctor.defineDoors(flags)
	flags.StringVar(&output, "output", "tulle-bugreport.tar.gz", "`FILE` to write; it must not exist")
	flags.BoolVar(&mask, "mask", false, "give addresses outside the containers' network other names")
	return cmd
}

func printBugReport(w io.Writer, output string, r bugreport.Report, masked bool) error {
	for _, missing := range r.Missing {
		fmt.Fprintf(w, "missing: %s\n", printable.Lines(missing))
	}
	names := make([]string, len(r.Parts))
	for i, p := range r.Parts {
		names[i] = p.Name
	}
	fmt.Fprintf(w, "%s holds %s\n", output, strings.Join(names, ", "))
	advice := "look at it before you send it: tar -xzOf " + output + " | less"
	if !masked {
		advice += "; it has the addresses of hosts: --mask gives them other names"
	}
	_, err := fmt.Fprintln(w, advice)
	return err
}

// reporter finds what goes into a report.
type reporter struct {
	store  storeFlags
	doctor doctorCommand

	inside []netip.Prefix // the containers' network
}

func (r *reporter) collect(ctx context.Context) bugreport.Report {
	var report bugreport.Report
	client := api.NewClient(r.doctor.runDir)
	report.Add("about.txt", about(), nil)
	for _, part := range []struct {
		name string
		read func(context.Context) ([]byte, error)
	}{
		{"status.json", func(ctx context.Context) ([]byte, error) { return asJSON(client.Status(ctx)) }},
		{"peers.json", func(ctx context.Context) ([]byte, error) { return asJSON(client.Peers(ctx)) }},
		{"doctor.json", func(ctx context.Context) ([]byte, error) { return asJSON(r.doctor.examine(ctx, nil)) }},
		{"metrics.txt", client.Metrics},
		{"log.txt", client.Log},
		{"subnet.env", r.readSubnetFile},
	} {
		bounded, cancel := context.WithTimeout(ctx, partTime)
		text, err := part.read(bounded)
		cancel()
		report.Add(part.name, text, err)
	}
	r.addKernel(ctx, client, &report)
	r.addStore(ctx, &report)
	return report
}

// about tells the versions.
func about() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "tulle %s, %s %s/%s, %d processors\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	for _, path := range []string{"/proc/version", "/etc/os-release"} {
		text, err := regularfile.ReadTarget(path, 1<<16)
		if err != nil {
			text = []byte(err.Error() + "\n")
		}
		b.Write(text)
	}
	return b.Bytes()
}

func asJSON(v any, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(v, "", "  ")
}

func (r *reporter) readSubnetFile(context.Context) ([]byte, error) {
	if env, err := flannel.ReadEnv(r.doctor.subnetFile); err == nil {
		for _, f := range ip.Families() {
			if network := env.Network.Of(f); network.IsValid() {
				r.inside = append(r.inside, network)
			}
		}
	}
	return regularfile.ReadTarget(r.doctor.subnetFile, 1<<16)
}

// addKernel adds what the kernel has of Tulle's, what is wanted of it, and the difference, each as commands.
func (r *reporter) addKernel(ctx context.Context, client *api.Client, report *bugreport.Report) {
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	want, have, plan, err := planned(ctx, client)
	if err != nil {
		report.Add("kernel.txt", nil, err)
		return
	}
	report.Add("wanted.txt", []byte(want.State.String()), nil)
	report.Add("kernel.txt", []byte(have.String()), nil)
	report.Add("plan.txt", []byte(plan.String()), nil)
}

// addStore adds configuration and leases, without the keys by which hosts ask each other.
func (r *reporter) addStore(ctx context.Context, report *bugreport.Report) {
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	var config, leases []byte
	err := r.store.do(func(s subnet.Operator) error {
		set, err := s.Snapshot(ctx)
		if err != nil {
			return err
		}
		if set.Network != nil {
			r.inside = append(r.inside, set.Network.Prefixes()...)
		}
		if config, _, err = s.Config(ctx); err != nil {
			return err
		}
		if config == nil {
			config = []byte("none: " + s.ConfigKey() + " does not exist\n")
		}
		leases, err = asJSON(leasesOf(set), nil)
		return err
	})
	report.Add("config.json", config, err)
	report.Add("leases.json", leases, err)
}
