package main

import (
	"fmt"
	"log/slog"

	"tulle/internal/agent"
	"tulle/internal/api"
	"tulle/ip/kernel/fastpath"
)

// fastPath is the host's fast path, if it has one.
type fastPath struct {
	path *fastpath.FastPath // nil: there is none
	off  string             // why
	bpf  bool               // bpf(2) may be called
}

const offByFlag = "by --fast-path=off"

// openFastPath opens the fast path as the operator wants it. What the host does not allow is no failure, but said in the status.
func openFastPath(opts options, log *slog.Logger) fastPath {
	forbidden := bpfForbidden()
	switch {
	case opts.fastPath == fastPathOff && forbidden != nil: // nor has there been an earlier run that was allowed to leave anything
		return fastPath{off: offByFlag}
	case opts.fastPath == fastPathOff:
		if err := fastpath.Remove(opts.bpfDir); err != nil {
			log.Warn("what the fast path of an earlier run left on this host is not removed", "err", err)
		}
		return fastPath{off: offByFlag, bpf: true}
	case forbidden != nil:
		return fastPath{off: forbidden.Error()}
	}
	path, err := fastpath.Open(fastpath.Config{Dir: opts.bpfDir, Life: opts.fastPathLife, Log: log})
	if err == nil {
		return fastPath{path: path, bpf: true}
	}
	// Off is what it is then: programs of an earlier run, which nobody would keep right, do not go on.
	if removeErr := fastpath.Remove(opts.bpfDir); removeErr != nil {
		err = fmt.Errorf("%w; and what an earlier run left is not removed: %w", err, removeErr)
	}
	log.Info("packets take the plain path: there is no fast one", "err", err)
	return fastPath{off: err.Error(), bpf: true}
}

// programs are those in the kernel.
func (f fastPath) programs() map[uint32]bool {
	if f.path == nil {
		return nil
	}
	return f.path.Programs()
}

// ofAgent is what the agent works with.
func (f fastPath) ofAgent() agent.OpenedFastPath {
	if f.path == nil {
		return agent.OpenedFastPath{Off: f.off}
	}
	return agent.OpenedFastPath{FastPath: f.path}
}

// ofAPI is what the API asks; nil if there is none.
func (f fastPath) ofAPI() api.FastPath {
	if f.path == nil {
		return nil
	}
	return f.path
}

// close leaves what is in the kernel as it is, as far as that can be.
func (f fastPath) close(log *slog.Logger) {
	if f.path == nil {
		return
	}
	if err := f.path.Close(); err != nil {
		log.Warn("the fast path is not closed", "err", err)
	}
}
