//go:build linux

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"tulle/subnet/flannel"
)

// labsDir holds the directories of detached labs.
const labsDir = "/run/tulle-lab"

// Dir is the directory of the detached lab with the given name.
func Dir(name string) string { return filepath.Join(labsDir, name) }

// removeDir removes the directory of a lab, and that of all labs with the last.
func removeDir(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove lab directory: %w", err)
	}
	if filepath.Dir(dir) == labsDir {
		// It fails while there are other labs.
		_ = os.Remove(labsDir)
	}
	return nil
}

// state is what a later process needs to know of a detached lab.
type state struct {
	Config  Config
	EtcdDir string
}

func statePath(dir string) string { return filepath.Join(dir, "lab.json") }

func (l *Lab) saveState() error {
	text, err := json.MarshalIndent(state{Config: l.Config, EtcdDir: l.Etcd.dataDir}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode lab state: %w", err)
	}
	// Renamed into place: Remove must find the directories after any crash.
	path := statePath(l.Config.Dir)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write lab state: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write lab state: %w", err)
	}
	return nil
}

func loadState(dir string) (state, error) {
	var s state
	text, err := os.ReadFile(statePath(dir))
	if err != nil {
		return s, fmt.Errorf("read lab state: %w", err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("read lab state %s: %w", statePath(dir), err)
	}
	return s, nil
}

// Open returns the detached lab with the given name, to look at and to enter.
// The caller ends with Release; the lab runs on. If there is no such lab, the
// error satisfies errors.Is(err, fs.ErrNotExist).
func Open(name string) (*Lab, error) {
	s, err := loadState(Dir(name))
	if err != nil {
		return nil, err
	}
	l := &Lab{Config: s.Config}
	l.Etcd = &Etcd{lab: l, dataDir: s.EtcdDir, port: etcdPort}
	if err := l.reopen(); err != nil {
		return nil, errors.Join(err, l.Release())
	}
	return l, nil
}

func (l *Lab) reopen() (err error) {
	if l.router, err = openNode("router", l.pins()); err != nil {
		return err
	}
	if err := l.reopenEtcd(); err != nil {
		return err
	}
	for index := 1; index <= l.Config.Hosts; index++ {
		host := l.newHost(index)
		if host.node, err = openNode(host.Name, l.pins()); err != nil {
			return err
		}
		l.Hosts = append(l.Hosts, host)
		if err := host.reopenContainers(l.Config.Containers); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) reopenContainers(count int) error {
	// The network may have been given other families than the lab has: its hosts are entered all the same.
	env, err := flannel.ReadEnv(h.SubnetFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for number := 1; number <= count; number++ {
		container := h.newContainer(number, env)
		if container.node, err = openNode(container.Name, h.lab.pins()); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		h.Containers = append(h.Containers, container)
	}
	return nil
}

// Release closes what this process holds open of a detached lab, which runs on.
func (l *Lab) Release() error {
	var errs []error
	for _, n := range l.nodes() {
		errs = append(errs, n.close())
	}
	l.Hosts, l.Etcd.Members, l.router = nil, nil, nil
	return errors.Join(errs...)
}

// nodes lists all nodes, each before the one it is plugged into.
func (l *Lab) nodes() []*node {
	var nodes []*node
	for _, host := range l.Hosts {
		for _, container := range host.Containers {
			nodes = append(nodes, container.node)
		}
		nodes = append(nodes, host.node)
	}
	for _, member := range l.Etcd.Members {
		if member.node != l.router {
			nodes = append(nodes, member.node)
		}
	}
	if l.router != nil {
		nodes = append(nodes, l.router)
	}
	return nodes
}
