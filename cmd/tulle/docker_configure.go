//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tulle/internal/atomicfile"
	"tulle/internal/docker"
	"tulle/internal/holder"
	"tulle/ip"
	"tulle/ip/kernel/bridge"
	"tulle/subnet/flannel"
)

// dockerConfigure is one run of tulle docker configure.
type dockerConfigure struct {
	*dockerFlags
	force, restart   bool
	version, envFile string
}

func newDockerConfigureCommand(flags *dockerFlags) *cobra.Command {
	run := dockerConfigure{dockerFlags: flags}
	cmd := &cobra.Command{
		Use:   "configure",
		Short: "Give docker0 this host's subnet and the network's MTU",
		Long: `Put this host's lease into Docker's daemon.json: bip, mtu, ip-masq if tulled masquerades, ipv6 and
fixed-cidr-v6 for an IPv6 lease, and what newer Docker needs to let other hosts' packets in: allow-direct-routing from 28.2
on, and bridge-accept-fwmark from 29 on. Everything else in the file keeps its bytes. A setting that contradicts the lease is
shown, and is replaced only with --force. The former file is kept beside it; unconfigure brings it back.
The file is the one that dockerd reads, by its command line, or by docker.service if it does not run; its owner, permissions and
labels stay. Nothing is changed if dockerd would not start with it. A drop-in lets systemd start Docker after tulled. Run it
again when the lease has changed.`,
		Example: `  tulle docker configure --restart
  tulle docker configure --env-file /run/docker_opts.env`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error { return run.do(cmd.Context(), cmd.OutOrStdout()) }).runE,
	}
	cmd.Flags().BoolVar(&run.force, "force", false, "replace settings that contradict the lease")
	cmd.Flags().BoolVar(&run.restart, "restart", false, "restart Docker if it must")
	cmd.Flags().StringVar(&run.version, "docker-version", "", "`version` of Docker, such as 28.2, instead of asking it")
	cmd.Flags().StringVar(&run.envFile, "env-file", "", "only write this `file`, with DOCKER_OPTS for dockerd's command line")
	return cmd
}

func (r *dockerConfigure) do(ctx context.Context, w io.Writer) error {
	env, err := r.lease()
	if err != nil {
		return err
	}
	if r.envFile != "" {
		return atomicfile.Write(r.envFile, []byte(docker.Options(env)), 0o644)
	}
	engine, err := r.connect(ctx)
	if err != nil {
		return err
	}
	version, err := r.release(engine)
	if err != nil {
		return err
	}
	settings := docker.Settings(env, version)
	file, err := r.open(ctx, w, env, settings, version)
	if err != nil {
		return err
	}
	if err := r.notElsewhere(ctx, engine, env); err != nil {
		return err
	}
	if err := checkHolders(r.confDir, defaultCNIData, env, holder.Owner{Bridges: []string{docker.DefaultBridge}}); err != nil {
		return err
	}
	changes, err := file.Configure(settings, env.Subnets, r.force)
	if err != nil {
		return err
	}
	printChanges(w, file, changes)
	if err := remember(file, env); err != nil {
		return err
	}
	if err := installDropIn(ctx, w); err != nil {
		return err
	}
	adviseUpgrade(w, version)
	return r.finish(ctx, w, engine, env, file, changes)
}

// open returns the file that dockerd reads, once it is known that dockerd could start with the settings in it. It says
// what is not known of a Docker that does not run.
func (r *dockerConfigure) open(ctx context.Context, w io.Writer, env flannel.Env, settings []docker.Setting, version docker.Version) (docker.File, error) {
	daemon, err := r.daemon()
	if err != nil {
		return docker.File{}, err
	}
	file, err := r.file(daemon)
	if err != nil {
		return file, err
	}
	if err := file.Readable(version); err != nil {
		return file, err
	}
	pools, err := docker.OverlappingPools(env, file, daemon)
	if err != nil {
		return file, err
	}
	if daemon != nil {
		if err := daemon.Check(settings, env.Subnets); err != nil {
			return file, err
		}
		file = file.Accepting(func(path string) error { return validate(ctx, daemon, path) })
	}
	switch {
	case daemon == nil:
		fmt.Fprintf(w, "No dockerd is seen to run here, and systemd has no unit for it: it is taken to read %s, and to have no flags against it.\n", file.Path())
	case daemon.PID == 0:
		fmt.Fprintf(w, "Docker is taken to start as %s says.\n", daemon.Unit)
	}
	if pools != "" {
		fmt.Fprintf(w, "Docker may take addresses of Tulle's network for other networks: %s.\n", pools)
	}
	return file, nil
}

// remember notes which address docker0 is to have again after unconfigure. One in the network is from an earlier lease.
func remember(file docker.File, env flannel.Env) error {
	addrs, err := bridge.Addrs(docker.DefaultBridge)
	if err != nil {
		return err
	}
	return file.Remember(slices.DeleteFunc(addrs, func(a netip.Prefix) bool {
		network := env.Network.Of(ip.FamilyOf(a.Addr()))
		return network.IsValid() && network.Overlaps(a)
	}))
}

// adviseUpgrade warns of the releases that drop packets without a way to tell them otherwise.
func adviseUpgrade(w io.Writer, version docker.Version) {
	if version.DropsRouted() && !version.RoutesDirectly() {
		fmt.Fprintf(w, "Docker %s drops what other hosts send to containers, and has no setting for it: upgrade it to 28.2.\n", version)
	}
}

// release is the version of Docker, asked or told.
func (r *dockerConfigure) release(engine *docker.Engine) (docker.Version, error) {
	switch {
	case r.version != "":
		v, err := docker.ParseVersion(r.version)
		if err != nil {
			return v, usageError(err)
		}
		return v, nil
	case engine == nil:
		return docker.Version{}, fmt.Errorf("%w on %s, and what to set depends on its version: start it, or give --docker-version", docker.ErrNotRunning, r.socket)
	default:
		return engine.Version, nil
	}
}

// notElsewhere refuses to give docker0 what a network of ours holds: Docker would not start.
func (r *dockerConfigure) notElsewhere(ctx context.Context, engine *docker.Engine, env flannel.Env) error {
	if engine == nil {
		return nil
	}
	networks, err := engine.Networks(ctx)
	if err != nil {
		return err
	}
	return docker.OnlyDefault(env, networks)
}

// finish says whether Docker must restart, and why, and does it if asked to.
func (r *dockerConfigure) finish(ctx context.Context, w io.Writer, engine *docker.Engine, env flannel.Env, file docker.File, changes []docker.Change) error {
	if engine == nil {
		fmt.Fprintln(w, "Docker is not running: it reads this when it starts.")
		return nil
	}
	networks, err := engine.Networks(ctx)
	if err != nil {
		return err
	}
	why := docker.Pending(env, networks)
	if why == "" && len(changes) > 0 {
		why = "it reads " + file.Path() + " only when it starts"
	}
	switch {
	case why == "":
		fmt.Fprintln(w, "Docker need not restart.")
		return nil
	case !r.restart:
		fmt.Fprintf(w, "Docker must restart: %s. When its containers may stop: %s\n", why, restartLine)
		return nil
	}
	if err := restartDocker(ctx, engine); err != nil {
		return err
	}
	if networks, err = engine.Networks(ctx); err != nil {
		return err
	}
	if why := docker.Pending(env, networks); why != "" {
		return fmt.Errorf("restart docker: it has restarted, and still %s", why)
	}
	fmt.Fprintln(w, "Docker has restarted.")
	return nil
}

func installDropIn(ctx context.Context, w io.Writer) error {
	if installed, _ := haveSystemd(); !installed {
		return nil
	}
	changed, err := docker.InstallDropIn(dropInPath)
	if !changed || err != nil {
		return err
	}
	fmt.Fprintf(w, "%s: Docker starts after tulled\n", dropInPath)
	return systemctl(ctx, "daemon-reload")
}

func printChanges(w io.Writer, file docker.File, changes []docker.Change) {
	if len(changes) == 0 {
		fmt.Fprintf(w, "%s stays as it is\n", file.Path())
		return
	}
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintf(&b, "  %s\n", c)
	}
	fmt.Fprintf(w, "%s:\n%s", file.Path(), &b)
}
