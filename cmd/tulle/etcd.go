package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tulle/internal/etcdmember"
)

func newEtcdCommand() *cobra.Command {
	var config etcdmember.Config
	cmd := &cobra.Command{
		Use:   "etcd",
		Short: "Run an etcd member, for labs and small clusters",
		Long: `Run an etcd member in the foreground until SIGTERM or SIGINT.

Without flags it is a cluster of one, which serves clients on this host alone.
The flags are those of etcd itself.`,
		Example: `  tulle etcd --data-dir /var/lib/tulle/etcd --listen-client-urls http://0.0.0.0:2379 \
    --advertise-client-urls http://192.0.2.1:2379`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if err := config.Check(); err != nil {
				return usageError(err)
			}
			return etcdmember.Run(cmd.Context(), config, func(endpoints []string) {
				fmt.Fprintln(cmd.OutOrStdout(), "etcd is ready at", strings.Join(endpoints, ", "))
			})
		}).runE,
	}
	flags := cmd.Flags()
	flags.StringVar(&config.Name, "name", "default", "name of this member")
	flags.StringVar(&config.DataDir, "data-dir", "/var/lib/tulle/etcd", "directory of the database")
	flags.StringSliceVar(&config.ListenClientURLs, "listen-client-urls", []string{"http://127.0.0.1:2379"}, "URLs to serve clients on")
	flags.StringSliceVar(&config.AdvertiseClientURLs, "advertise-client-urls", nil, "client URLs to tell the cluster (default: --listen-client-urls)")
	flags.StringSliceVar(&config.ListenPeerURLs, "listen-peer-urls", nil, "URLs to serve other members on (default: a free port on 127.0.0.1)")
	flags.StringSliceVar(&config.AdvertisePeerURLs, "initial-advertise-peer-urls", nil, "peer URLs to tell the cluster (default: --listen-peer-urls)")
	flags.StringVar(&config.InitialCluster, "initial-cluster", "", "NAME=PEER-URL of every member, comma-separated (default: this member alone)")
	flags.StringVar(&config.InitialClusterState, "initial-cluster-state", "new", "new, or existing to join a cluster")
	flags.StringVar(&config.InitialClusterToken, "initial-cluster-token", "etcd-cluster", "the same on all members of one cluster")
	flags.StringVar(&config.CertFile, "cert-file", "", "certificate for https:// client URLs")
	flags.StringVar(&config.KeyFile, "key-file", "", "key of --cert-file")
	flags.StringVar(&config.TrustedCAFile, "trusted-ca-file", "", "let in only clients with a certificate that this authority has signed")
	flags.BoolVar(&config.UnsafeNoFsync, "unsafe-no-fsync", false, "do not wait for the disk: a power failure may lose data")
	flags.StringVar(&config.LogLevel, "log-level", "warn", "debug, info, warn, error, panic or fatal")
	return cmd
}
