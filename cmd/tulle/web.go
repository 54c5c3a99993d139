package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tulle/internal/api"
	"tulle/internal/settings"
	"tulle/internal/web"
	"tulle/subnet/etcd"
)

func newWebCommand() *cobra.Command {
	var store storeFlags
	var listen, runDir string
	cmd := &cobra.Command{
		Use:   "web",
		Short: "Show the network on a page for a browser",
		Long: `Show the network on a page for a browser, until SIGINT or SIGTERM: hosts and their states, who cannot reach whom, the addresses, the configuration, and what is
wrong with what to do, live. Nothing can be changed there. It needs only the store, and shows what this host's tulled knows if one runs.
Whoever reaches the page may read it: by default that is this host alone. From another, ssh -L 8474:127.0.0.1:8474 HOST leads to it.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			host, err := parseListen(listen)
			if err != nil {
				return usageError(err)
			}
			s, err := store.open()
			if err != nil {
				return err
			}
			return errors.Join(showPage(cmd, s, api.NewClient(runDir), listen, host), s.Close())
		}).runE,
	}
	store.define(cmd)
	settings.RunDir().Define(cmd.Flags(), &runDir)
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8474", "`ADDRESS:PORT` of the page; port 0 is a free one")
	return cmd
}

// parseListen returns the host of an address to listen at.
func parseListen(listen string) (host string, err error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("--listen is %q: want ADDRESS:PORT, such as 127.0.0.1:8474 or [::1]:8474", listen)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("--listen is %q: the port %q is not a number from 0 to 65535", listen, port)
	}
	return host, nil
}

// exposed reports whether other hosts may reach an address.
func exposed(addr string) bool {
	at, err := netip.ParseAddrPort(addr)
	return err != nil || !at.Addr().Unmap().IsLoopback()
}

func showPage(cmd *cobra.Command, store *etcd.Store, daemon *api.Client, listen, host string) error {
	l, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen at --listen %s: %w", listen, err)
	}
	defer l.Close()
	server, err := web.New(web.Config{Store: store, Daemon: daemon, Host: host})
	if err != nil {
		return err
	}
	handler, err := server.Handler()
	if err != nil {
		return err
	}
	if exposed(l.Addr().String()) {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: whoever reaches %s may read the page: there is no password, and nothing is encrypted\n", l.Addr())
	}
	fmt.Fprintf(cmd.OutOrStdout(), "the page is at http://%s/\n", l.Addr())
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
	g, ctx := errgroup.WithContext(cmd.Context())
	g.Go(func() error { return server.Run(ctx) })
	g.Go(func() error { return api.Serve(ctx, l, handler, log) })
	if err := g.Wait(); cmd.Context().Err() == nil {
		return err
	}
	return nil
}
