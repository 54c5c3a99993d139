//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Backup stops etcd, copies its data into dir, which must not exist, and starts it again.
func (e *Etcd) Backup(ctx context.Context, dir string) error {
	if err := e.Stop(); err != nil {
		return err
	}
	if err := os.CopyFS(dir, os.DirFS(e.dataDir)); err != nil {
		return errors.Join(fmt.Errorf("back up etcd: %w", err), e.Start(ctx))
	}
	return e.Start(ctx)
}

// Restore stops etcd, replaces its data by those of a backup, and starts it.
func (e *Etcd) Restore(ctx context.Context, dir string) error {
	if err := e.Stop(); err != nil {
		return err
	}
	if err := os.RemoveAll(e.dataDir); err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	if err := os.CopyFS(e.dataDir, os.DirFS(dir)); err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	return e.Start(ctx)
}
