//go:build linux

package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"tulle/subnet/flannel"
)

const (
	// patience is how long an ADD waits for a daemon that is just starting. With the last question it stays below 2 seconds.
	patience = time.Second
	askEvery = 50 * time.Millisecond
)

// ready returns the subnet file if containers can be started with it, else why not. It asks again for as long as wait.
func ready(ctx context.Context, c conf, wait time.Duration) (flannel.Env, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+answerTimeout)
	defer cancel()
	giveUp := time.Now().Add(wait)
	for {
		env, err, final := judge(ctx, c)
		if err == nil || final || time.Now().After(giveUp) {
			return env, err
		}
		select {
		case <-ctx.Done():
			return env, err
		case <-time.After(askEvery):
		}
	}
}

// judge decides from what the daemon says and what is in the file. It is final if to ask again would give the same.
func judge(ctx context.Context, c conf) (env flannel.Env, err error, final bool) {
	env, fileErr := flannel.ReadEnv(c.SubnetFile)
	st, daemonErr := askDaemon(ctx, c.RunDir)
	missing := errors.Is(fileErr, fs.ErrNotExist)
	switch {
	case daemonErr == nil && !st.vouches():
		return env, fmt.Errorf("tulled is not ready: %s", st.Reason), false
	case fileErr == nil:
		return env, nil, true
	case !missing:
		return env, fileErr, true
	case daemonErr != nil:
		return env, fmt.Errorf("no tulled answers on %s, and none has written %s: start it, or set runDir and subnetFile in the CNI configuration to its --run-dir and --subnet-file",
			filepath.Join(c.RunDir, socketName), c.SubnetFile), true
	case !st.Ready:
		return env, fmt.Errorf("tulled is not ready: %s", st.Reason), false
	default:
		return env, fmt.Errorf("tulled is ready, but its subnet file is not %s: set subnetFile in the CNI configuration to its --subnet-file", c.SubnetFile), true
	}
}
