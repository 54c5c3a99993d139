package main

import (
	"log/slog"

	"tulle/internal/agent"
	"tulle/internal/identity"
	"tulle/internal/probe"
	"tulle/subnet"
)

// probePort is where hosts ask each other, by UDP.
const probePort = 8473

// askedAt is where this host is asked; zero if it is not. If its key cannot be kept for the next start, unkept says why.
func askedAt(on bool, runDir string) (p subnet.Probe, unkept, err error) {
	if !on {
		return p, nil, nil
	}
	p.Port = probePort
	p.Key, unkept, err = identity.ProbeKey(runDir)
	return p, unkept, err
}

// newProber makes the prober of the agent; nil if there is to be none.
func newProber(on bool, log *slog.Logger) func(changed func()) agent.Prober {
	if !on {
		return nil
	}
	return func(changed func()) agent.Prober { return probe.New(probe.Config{Log: log, Changed: changed}) }
}
