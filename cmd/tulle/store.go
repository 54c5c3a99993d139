package main

import (
	"cmp"
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"tulle/subnet/etcd"
)

// storeFlags say where the store is. Names and environment are tulled's.
type storeFlags struct {
	config    etcd.Config
	endpoints string
}

func (f *storeFlags) define(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.endpoints, "etcd-endpoints", setting("ETCD_ENDPOINTS", "http://127.0.0.1:2379"), "comma-separated `URLs` of etcd")
	flags.StringVar(&f.config.Prefix, "etcd-prefix", setting("ETCD_PREFIX", etcd.DefaultPrefix), "`prefix` of Tulle's keys in etcd")
	flags.StringVar(&f.config.CAFile, "etcd-cafile", setting("ETCD_CAFILE", ""), "`file` with the certificates that etcd's must be signed by")
	flags.StringVar(&f.config.CertFile, "etcd-certfile", setting("ETCD_CERTFILE", ""), "certificate `file` for client authentication")
	flags.StringVar(&f.config.KeyFile, "etcd-keyfile", setting("ETCD_KEYFILE", ""), "private key `file` for client authentication")
	flags.StringVar(&f.config.Username, "etcd-username", setting("ETCD_USERNAME", ""), "`user` for etcd's authentication")
	flags.StringVar(&f.config.PasswordFile, "etcd-password-file", setting("ETCD_PASSWORD_FILE", ""), "`file` that holds the password")
}

// setting is a default from the environment that tulled reads too.
func setting(name, fallback string) string {
	return cmp.Or(os.Getenv("TULLED_"+name), os.Getenv("FLANNELD_"+name), fallback)
}

// do opens the store for the length of fn.
func (f *storeFlags) do(fn func(*etcd.Store) error) (err error) {
	f.config.Endpoints = strings.Split(f.endpoints, ",")
	f.config.Password = setting("ETCD_PASSWORD", "")
	store, err := etcd.Open(f.config)
	if err != nil {
		return usageError(err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return fn(store)
}
