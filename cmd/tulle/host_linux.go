package main

import "github.com/spf13/cobra"

// hostCommands act on the host that they run on, or make hosts of their own: they need Linux.
func hostCommands() []*cobra.Command {
	return []*cobra.Command{
		newCNICommand(),
		newDockerCommand(),
		newCleanupCommand(),
		newDoctorCommand(),
		newBugReportCommand(),
		newLabCommand(),
		newBenchCommand(),
	}
}
