//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tulle/internal/docker"
	"tulle/internal/settings"
	"tulle/subnet/flannel"
)

func newDockerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "docker",
		Short: "Put this host's Docker on the network",
	}
	var flags dockerFlags
	flags.define(cmd)
	cmd.AddCommand(
		newDockerConfigureCommand(&flags),
		newDockerUnconfigureCommand(&flags),
		newDockerNetworkCommand(&flags),
		newDockerStatusCommand(&flags),
	)
	return cmd
}

// dockerFlags say where Docker and the lease are.
type dockerFlags struct{ socket, daemonJSON, subnetFile, confDir string }

// dockerSocket is Docker's unless a flag names another.
func dockerSocket() string {
	if socket, ok := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://"); ok {
		return socket
	}
	return "/var/run/docker.sock"
}

func (f *dockerFlags) define(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.socket, "docker-socket", dockerSocket(), "Docker's unix `socket`")
	flags.StringVar(&f.daemonJSON, "daemon-json", "", "Docker's configuration `file`, instead of asking dockerd")
	flags.StringVar(&f.confDir, "cni-conf-dir", defaultConfDir, "`directory` of CNI configurations, which may hold the subnet already")
	settings.SubnetFile().Define(flags, &f.subnetFile)
}

// lease reads what tulled has leased.
func (f *dockerFlags) lease() (flannel.Env, error) {
	env, err := flannel.ReadEnv(f.subnetFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("tulled has no lease yet: start it, or name its --subnet-file: %w", err)
	}
	return env, err
}

// connect returns nil if Docker does not run.
func (f *dockerFlags) connect(ctx context.Context) (*docker.Engine, error) {
	engine, err := docker.Connect(ctx, f.socket)
	if errors.Is(err, docker.ErrNotRunning) {
		return nil, nil
	}
	return engine, err
}

// daemon is the dockerd that runs, or else as systemd is to start it; nil if there is neither. A drop-in in the place
// of Tulle's own does not count once it replaces dockerd's command line: an earlier way to give docker0 the lease,
// which configure overwrites.
func (f *dockerFlags) daemon() (*docker.Daemon, error) {
	replaced, err := docker.HasCommandLine(dropInPath)
	if err != nil {
		return nil, err
	}
	running, err := docker.FindDaemon(f.socket)
	if err != nil || running != nil && !replaced {
		return running, err
	}
	planned, err := docker.PlannedDaemon(docker.UnitDirs(), filepath.Base(dropInPath))
	if planned == nil && err == nil {
		planned = running
	}
	return planned, err
}

// file opens the file that dockerd reads. For one that runs there is no choice.
func (f *dockerFlags) file(d *docker.Daemon) (docker.File, error) {
	path := f.daemonJSON
	if d == nil {
		return docker.OpenFile(cmp.Or(path, docker.UsualConfigFile))
	}
	read, err := d.ConfigFile()
	if err != nil {
		return docker.File{}, err
	}
	if path == "" {
		path = read
	}
	if path, err = filepath.Abs(path); err != nil {
		return docker.File{}, err
	}
	file, err := docker.OpenFile(path)
	if err != nil || d.PID == 0 {
		return file, err
	}
	actual, err := docker.OpenFile(read)
	if err == nil && actual.Path() != file.Path() {
		err = fmt.Errorf("--daemon-json %s: %s reads %s, not %s", path, d, read, path)
	}
	return file, err
}

// dockerFile opens the file that dockerd reads, for commands that need to know nothing else of it.
func (f *dockerFlags) dockerFile() (docker.File, error) {
	d, err := f.daemon()
	if err != nil {
		return docker.File{}, err
	}
	return f.file(d)
}

// validate has dockerd look at a file as it would when it starts, with its own flags. Before Docker 23 it cannot.
func validate(ctx context.Context, d *docker.Daemon, path string) error {
	program, err := exec.LookPath(d.Program)
	if err != nil {
		return nil // removed: there is nobody to ask
	}
	help, err := command(ctx, program, "--help")
	if ctx.Err() != nil {
		return fmt.Errorf("ask %s about the new content: %w", program, ctx.Err())
	}
	if err != nil || !strings.Contains(help, "--validate") {
		return nil
	}
	args := append(slices.Clone(d.Args), "--validate", "--config-file="+path)
	if said, err := command(ctx, program, args...); err != nil {
		return fmt.Errorf("dockerd would not start with the new content of its configuration, which stays as it is; it says: %s (%w)", strings.ReplaceAll(said, path, "it"), err)
	}
	return nil
}

const (
	dropInDir  = "/etc/systemd/system"
	dropInPath = dropInDir + "/docker.service.d/tulle.conf"
)

// restartLine is what an operator would type.
const restartLine = "systemctl restart docker"

// restartDocker restarts it, or says why it is better not, or how.
func restartDocker(ctx context.Context, engine *docker.Engine) error {
	info, err := engine.Info(ctx)
	if err != nil {
		return err
	}
	if info.LiveRestore && info.Containers > 0 {
		return fmt.Errorf("restart docker: live-restore keeps docker0 as it is while containers run: stop the %d that do, and then: %s", info.Containers, restartLine)
	}
	if _, running := haveSystemd(); !running {
		return errors.New("restart docker: systemd does not run here: restart Docker the way that it was started, such as: service docker restart")
	}
	return systemctl(ctx, "restart", "docker")
}

// haveSystemd reports whether systemd is installed, and whether it runs this host (sd_booted(3)).
func haveSystemd() (installed, running bool) {
	_, errDir := os.Stat(dropInDir)
	_, errRun := os.Stat("/run/systemd/system")
	return errDir == nil, errRun == nil
}

// systemctl runs one command of systemd's, if systemd runs.
func systemctl(ctx context.Context, args ...string) error {
	if _, running := haveSystemd(); !running {
		return nil
	}
	if said, err := command(ctx, "systemctl", args...); err != nil {
		return fmt.Errorf("run systemctl %s: %w: %s", strings.Join(args, " "), err, said)
	}
	return nil
}
