package etcdmember

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"go.etcd.io/etcd/server/v3/embed"
)

// Config describes one member. The zero value of every field but DataDir is
// usable and makes a cluster of one on the loopback interface.
type Config struct {
	// Name identifies the member in InitialCluster. Default "default".
	Name string
	// DataDir keeps the database. A new member preallocates 128 MB in it.
	DataDir string
	// ListenClientURLs default to http://127.0.0.1:2379. Port 0 picks a free
	// port and leaves out the HTTP gateway.
	ListenClientURLs []string
	// AdvertiseClientURLs default to ListenClientURLs.
	AdvertiseClientURLs []string
	// ListenPeerURLs default to a free loopback port, which suits one member.
	ListenPeerURLs []string
	// AdvertisePeerURLs default to ListenPeerURLs.
	AdvertisePeerURLs []string
	// InitialCluster lists name=peer-URL pairs. Default: this member alone.
	InitialCluster string
	// InitialClusterState is "new" (the default) or "existing".
	InitialClusterState string
	// InitialClusterToken tells clusters apart. Default "etcd-cluster".
	InitialClusterToken string
	// CertFile and KeyFile serve clients over TLS. They are read anew for every
	// connection.
	CertFile, KeyFile string
	// TrustedCAFile, if set, lets in only clients with a certificate signed by
	// an authority in it.
	TrustedCAFile string
	// UnsafeNoFsync trades durability for speed: for labs only.
	UnsafeNoFsync bool
	// LogLevel is debug, info, warn, error, panic or fatal. Default "fatal":
	// etcd reports each of its listeners as an error when it is closed.
	LogLevel string
}

// Check reports a configuration that Start would refuse.
func (c Config) Check() error {
	_, err := c.embed()
	return err
}

func (c Config) embed() (*embed.Config, error) {
	if c.LogLevel != "" && !slices.Contains(logLevels(), c.LogLevel) {
		return nil, fmt.Errorf("log level is %q, must be one of %s", c.LogLevel, strings.Join(logLevels(), ", "))
	}
	config := embed.NewConfig()
	config.Dir = c.DataDir
	config.UnsafeNoFsync = c.UnsafeNoFsync
	config.AutoCompactionMode = embed.CompactorModePeriodic
	config.AutoCompactionRetention = compactionRetention.String()
	config.LogLevel = cmp.Or(c.LogLevel, "fatal")
	config.LogOutputs = []string{"stderr"}
	config.Name = cmp.Or(c.Name, config.Name)
	config.ClientTLSInfo.CertFile, config.ClientTLSInfo.KeyFile = c.CertFile, c.KeyFile
	config.ClientTLSInfo.TrustedCAFile, config.ClientTLSInfo.ClientCertAuth = c.TrustedCAFile, c.TrustedCAFile != ""
	config.ClusterState = cmp.Or(c.InitialClusterState, config.ClusterState)
	config.InitialClusterToken = cmp.Or(c.InitialClusterToken, config.InitialClusterToken)

	listenClients := orList(c.ListenClientURLs, []string{embed.DefaultListenClientURLs})
	listenPeers := orList(c.ListenPeerURLs, []string{"http://127.0.0.1:0"})
	for _, list := range []struct {
		name  string
		texts []string
		into  *[]url.URL
	}{
		{"listen client URL", listenClients, &config.ListenClientUrls},
		{"advertised client URL", orList(c.AdvertiseClientURLs, listenClients), &config.AdvertiseClientUrls},
		{"listen peer URL", listenPeers, &config.ListenPeerUrls},
		{"advertised peer URL", orList(c.AdvertisePeerURLs, listenPeers), &config.AdvertisePeerUrls},
	} {
		urls, err := parseURLs(list.texts)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", list.name, err)
		}
		*list.into = urls
	}
	config.InitialCluster = cmp.Or(c.InitialCluster, config.InitialClusterFromName(config.Name))
	for _, client := range config.ListenClientUrls {
		// The gateway dials the address as configured, which port 0 is not.
		if client.Port() == "0" {
			config.EnableGRPCGateway = false
		}
	}
	return config, nil
}

// logLevels are those that etcd knows; it panics on any other.
func logLevels() []string { return []string{"debug", "info", "warn", "error", "panic", "fatal"} }

func parseURLs(texts []string) ([]url.URL, error) {
	urls := make([]url.URL, len(texts))
	for i, text := range texts {
		u, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		if u.Scheme == "" || u.Host == "" {
			return nil, fmt.Errorf("%q is not of the form http://ADDRESS:PORT", text)
		}
		urls[i] = *u
	}
	return urls, nil
}

func orList(values, fallback []string) []string {
	if len(values) == 0 {
		return fallback
	}
	return values
}
