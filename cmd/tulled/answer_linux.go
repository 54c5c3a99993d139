package main

import (
	"context"

	"tulle/internal/agent"
	"tulle/internal/doctor"
	"tulle/internal/doctor/facts"
	"tulle/internal/doctor/far"
	"tulle/internal/hostfiles"
	"tulle/subnet"
)

// answers tells other hosts how this one stands, as the agent knows it; nil if they are not to know. The agent is there when the first asks.
func answers(o options, of func() *agent.Agent) subnet.Answer {
	if !o.answer {
		return nil
	}
	doors := facts.Usual()
	doors.Version, doors.StateDir, doors.SubnetFile = version, o.stateDir, o.subnetFile
	doors.Status = func(context.Context) (agent.Status, error) { return of().Summary(), nil }
	doors.Peers = func(context.Context) (agent.PeerReports, error) { return of().Peers(), nil }
	doors.Wanted = func(ctx context.Context) (hostfiles.Wanted, error) { return of().Wanted(ctx) }
	doors.Absent = func(error) bool { return false }
	return far.Answerer(func(ctx context.Context, q doctor.Question) doctor.Facts { return facts.Gather(ctx, doors, q) }, o.hidden()...)
}

// hidden is where secrets lie, which messages may name. The secrets themselves are in none.
func (o options) hidden() []string {
	return []string{o.etcd.PasswordFile, o.etcd.KeyFile, o.etcd.CertFile, o.etcd.CAFile}
}
