//go:build linux

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"tulle/internal/bench"
)

func newBenchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure what a large network costs, and what packets do",
	}
	cmd.AddCommand(newBenchControlCommand(), newBenchFleetCommand(), newBenchPathCommand(), newTrafficCommand())
	return cmd
}

func seconds(s float64) string {
	if s < 1 {
		return fmt.Sprintf("%.1f ms", s*1000)
	}
	return fmt.Sprintf("%.2f s", s)
}

func percent(share float64) string  { return fmt.Sprintf("%.2f %%", share*100) }
func megabytes(bytes uint64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }

// printMissed ends a table with the targets that were not met, of which docs/scale.md and docs/performance.md tell.
func printMissed(w io.Writer, r bench.Report) error {
	for _, missed := range r.Missed {
		if _, err := fmt.Fprintf(w, "target missed: %s\n", missed); err != nil {
			return err
		}
	}
	return nil
}
