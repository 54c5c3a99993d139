// Package settings names what several of Tulle's programs are told: a setting has one flag, one variable, one default and one text.
package settings

import "strings"

// Where tulled's files are unless it is told otherwise.
const (
	DefaultSubnetFile = "/run/flannel/subnet.env" // flannel's
	DefaultStateDir   = "/var/lib/tulle"
	DefaultRunDir     = "/run/tulle"
	DefaultBPFDir     = "/sys/fs/bpf/tulle"
)

// Setting is a value that is given by a flag or by a variable of the environment.
type Setting struct {
	flag, fallback string
	help           string // as package flag has it: the kind of value is between backquotes
}

// EtcdEndpoints takes a list, as List reads it.
func EtcdEndpoints() Setting {
	return Setting{flag: "etcd-endpoints", fallback: "http://127.0.0.1:4001,http://127.0.0.1:2379", help: "comma-separated `URLs` of etcd"}
}

// EtcdPrefix is what all keys begin with. The default is flannel's.
func EtcdPrefix() Setting {
	return Setting{flag: "etcd-prefix", fallback: "/coreos.com/network", help: "`prefix` of Tulle's keys in etcd"}
}

// EtcdCAFile is a file.
func EtcdCAFile() Setting {
	return Setting{flag: "etcd-cafile", help: "`file` with the certificates that etcd's must be signed by"}
}

// EtcdCertFile is a file.
func EtcdCertFile() Setting {
	return Setting{flag: "etcd-certfile", help: "certificate `file` for client authentication"}
}

// EtcdKeyFile is a file.
func EtcdKeyFile() Setting {
	return Setting{flag: "etcd-keyfile", help: "private key `file` for client authentication, read again at each handshake"}
}

// EtcdUsername is a name that etcd knows.
func EtcdUsername() Setting {
	return Setting{flag: "etcd-username", help: "`user` for etcd's authentication"}
}

// EtcdPassword is that user's.
func EtcdPassword() Setting {
	return Setting{flag: "etcd-password", help: "`password` for etcd's authentication; better given in a file"}
}

// EtcdPasswordFile is a file.
func EtcdPasswordFile() Setting {
	return Setting{flag: "etcd-password-file", help: "`file` that holds the password"}
}

// SubnetFile is a file.
func SubnetFile() Setting {
	return Setting{flag: "subnet-file", fallback: DefaultSubnetFile, help: "`file` that tulled writes for Docker and CNI plugins"}
}

// StateDir is a directory.
func StateDir() Setting {
	return Setting{flag: "state-dir", fallback: DefaultStateDir, help: "tulled's `directory` for what must survive a reboot"}
}

// RunDir is a directory.
func RunDir() Setting {
	return Setting{flag: "run-dir", fallback: DefaultRunDir, help: "tulled's `directory` for the socket and what must not survive a reboot"}
}

// BPFDir is a directory.
func BPFDir() Setting {
	return Setting{flag: "bpf-dir", fallback: DefaultBPFDir, help: "`directory` on a bpf filesystem that keeps the fast path's programs while no tulled runs"}
}

// All lists the settings.
func All() []Setting {
	return []Setting{
		EtcdEndpoints(), EtcdPrefix(), EtcdCAFile(), EtcdCertFile(), EtcdKeyFile(), EtcdUsername(), EtcdPassword(), EtcdPasswordFile(),
		SubnetFile(), StateDir(), RunDir(), BPFDir(),
	}
}

// Flags is a set of flags: that of package flag, or another with the same methods.
type Flags interface {
	StringVar(into *string, name, value, usage string)
}

// Define defines the setting's flag.
func (s Setting) Define(fs Flags, into *string) { fs.StringVar(into, s.flag, s.fallback, s.help) }

// Flag is the name of the setting's flag, without dashes.
func (s Setting) Flag() string { return s.flag }

// FromEnvironment returns the value that the environment has for a flag: TULLED_SOME_FLAG's, else FLANNELD_SOME_FLAG's, which
// is where flannel looks for --some-flag. An empty one is none. lookup is like os.LookupEnv.
func FromEnvironment(flag string, lookup func(string) (string, bool)) (variable, value string, ok bool) {
	for _, prefix := range []string{"TULLED_", "FLANNELD_"} {
		variable := prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
		if value, ok := lookup(variable); ok && value != "" {
			return variable, value, true
		}
	}
	return "", "", false
}

// List reads a comma-separated list. White space around its members does not count.
func List(text string) []string {
	var list []string
	for member := range strings.SplitSeq(text, ",") {
		if member = strings.TrimSpace(member); member != "" {
			list = append(list, member)
		}
	}
	return list
}
