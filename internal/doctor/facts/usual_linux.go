package facts

// Usual has the doors to what lies in the same place on all hosts.
func Usual() Doors {
	return Doors{
		DockerSocket: "/var/run/docker.sock", CNIConfDir: "/etc/cni/net.d", CNIDir: "/var/lib/cni", CNIBin: []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"},
		ResolvConf: "/etc/resolv.conf",
	}
}
