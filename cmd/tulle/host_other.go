//go:build !linux

package main

import "github.com/spf13/cobra"

// hostCommands are those that need Linux.
func hostCommands() []*cobra.Command { return nil }
