package facts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"tulle/internal/docker"
	"tulle/internal/doctor"
)

type dockerContainer = docker.Container

// askDocker asks the host's Docker, if one runs: to connect may have systemd start one that does not.
func (g *gathering) askDocker(ctx context.Context) (*doctor.Docker, []docker.Container, error) {
	socket := g.doors.DockerSocket
	if _, err := os.Stat(filepath.Join(filepath.Dir(socket), "docker.pid")); socket == "" || errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, dockerPatience)
	defer cancel()
	engine, err := docker.Connect(ctx, socket)
	if errors.Is(err, docker.ErrNotRunning) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	d := &doctor.Docker{Version: fmt.Sprint(engine.Version)}
	containers, err := engine.Containers(ctx)
	if err != nil {
		return d, nil, err
	}
	networks, err := engine.Networks(ctx)
	if err != nil {
		return d, containers, err
	}
	for _, h := range docker.Holdings(g.env, networks, false, "") {
		d.Networks = append(d.Networks, doctor.DockerNetwork{
			Name: cut(h.Name), Bridge: h.Bridge, Subnets: h.Subnets, MTU: h.MTU, Containers: len(h.Containers), Problem: cut(h.Problem), Remedy: cut(h.Remedy),
		})
	}
	return d, containers, nil
}
