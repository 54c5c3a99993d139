package main

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"tulle/internal/agent"
	"tulle/internal/api"
)

type running struct{}

func (running) Status() agent.Status { return agent.Status{Ready: true} }

func (running) Wanted(context.Context) (agent.Wanted, error) { return agent.Wanted{}, nil }

func (running) Summary() agent.Status { return agent.Status{Ready: true} }
func (running) Alive() error          { return nil }

func TestCleanupIsRefusedWhileTulledRuns(t *testing.T) {
	for name, start := range map[string]func(ctx context.Context, dir string) error{
		"answering": func(ctx context.Context, dir string) error {
			l, err := api.ListenSocket(ctx, dir)
			if err == nil {
				go func() { _ = api.Serve(ctx, l, api.Full(running{})) }() // ends with the test's context
			}
			return err
		},
		"talking nonsense": func(ctx context.Context, dir string) error {
			l, err := (&net.ListenConfig{}).Listen(ctx, "unix", filepath.Join(dir, api.SocketName))
			if err == nil {
				context.AfterFunc(ctx, func() { l.Close() })
				go func() {
					for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
						conn.Close()
					}
				}()
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := start(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			// Should it not be refused, there is still nothing to remove below an empty state directory but Tulle's rules.
			plan, _, err := cleanup(t.Context(), cleanupPaths{runDir: dir, stateDir: dir, subnetFile: filepath.Join(dir, "subnet.env")}, true)
			if err == nil || !strings.Contains(err.Error(), "stop it first") {
				t.Errorf("plan %v, error %v, want a refusal", plan, err)
			}
		})
	}
}
