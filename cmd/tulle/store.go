package main

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tulle/internal/settings"
	"tulle/subnet"
	"tulle/subnet/etcd"
)

// storeFlags say where the store is.
type storeFlags struct {
	config    etcd.Config
	endpoints string
}

func (f *storeFlags) define(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	settings.EtcdEndpoints().Define(flags, &f.endpoints)
	settings.EtcdPrefix().Define(flags, &f.config.Prefix)
	settings.EtcdCAFile().Define(flags, &f.config.CAFile)
	settings.EtcdCertFile().Define(flags, &f.config.CertFile)
	settings.EtcdKeyFile().Define(flags, &f.config.KeyFile)
	settings.EtcdUsername().Define(flags, &f.config.Username)
	settings.EtcdPassword().Define(flags, &f.config.Password)
	settings.EtcdPasswordFile().Define(flags, &f.config.PasswordFile)
}

// fromEnvironment sets the settings that a command line left alone, as tulled does.
func fromEnvironment(flags *pflag.FlagSet, lookup func(string) (string, bool)) error {
	for _, s := range settings.All() {
		f := flags.Lookup(s.Flag())
		if f == nil || f.Changed {
			continue
		}
		if _, value, ok := settings.FromEnvironment(s.Flag(), lookup); ok {
			if err := f.Value.Set(value); err != nil {
				return err
			}
		}
	}
	return nil
}

// open opens the store, for as long as it is not closed.
func (f *storeFlags) open() (*etcd.Store, error) {
	f.config.Endpoints = settings.List(f.endpoints)
	store, err := etcd.Open(f.config)
	if err != nil {
		return nil, usageError(err)
	}
	return store, nil
}

// do opens the store for the length of fn.
func (f *storeFlags) do(fn func(subnet.Operator) error) (err error) {
	store, err := f.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return fn(store)
}
