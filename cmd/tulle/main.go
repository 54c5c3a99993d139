// Command tulle operates a Tulle network: it inspects and changes what is in
// etcd and on this host, and runs whole networks in a lab.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"tulle/internal/printable"
)

// version is set when the binary is linked.
var version = "dev"

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var failure *commandError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &failure):
		if failure.err != nil {
			fmt.Fprintln(stderr, "tulle:", printable.Lines(failure.err.Error()))
		}
		return failure.code
	default:
		// Whatever cobra itself returns is about the command line.
		fmt.Fprintf(stderr, "tulle: %v\nRun 'tulle help' for usage.\n", printable.Lines(err.Error()))
		return exitUsage
	}
}

// commandError is what a command returned, as against what cobra found wrong
// with the command line.
type commandError struct {
	code int
	// err is nil if the command has already said why it failed.
	err error
}

func (e *commandError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *commandError) Unwrap() error { return e.err }

// usageError marks err as a mistake in the command line.
func usageError(err error) error { return &commandError{code: exitUsage, err: err} }
