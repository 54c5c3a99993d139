# Runs containerd below the directory $0, which holds bin, net.d and root.
#
# ctr looks for plugins in /opt/cni/bin and for configurations in /etc/cni/net.d, the plugins keep their state below
# /var/lib/cni, and shims put their sockets below /run.
cd "$0"
mkdir -p lib run etc
mount -t tmpfs none /opt
mkdir -p /opt/cni/bin
mount --bind bin /opt/cni/bin
mount -t tmpfs none etc
mkdir etc/upper etc/work
mount -t overlay -o "lowerdir=/etc,upperdir=$0/etc/upper,workdir=$0/etc/work" none /etc
mkdir -p /etc/cni/net.d
mount --bind net.d /etc/cni/net.d
mount --bind lib /var/lib
mount --bind run /run

# runc wants controllers, which the unified hierarchy of some machines lacks.
if [ ! -d /sys/fs/cgroup/cpu ] && ! grep -qs cpu /sys/fs/cgroup/cgroup.controllers; then
	mount -t tmpfs none /sys/fs/cgroup
	for controller in $(awk '$4 == 1 { print $1 }' /proc/cgroups); do
		mkdir "/sys/fs/cgroup/$controller"
		mount -t cgroup -o "$controller" none "/sys/fs/cgroup/$controller" || rmdir "/sys/fs/cgroup/$controller"
	done
	mkdir /sys/fs/cgroup/systemd
	mount -t cgroup -o none,name=systemd none /sys/fs/cgroup/systemd
fi

cat >containerd.toml <<EOF
version = 2
root = "$0/data"
state = "$0/exec"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$0/c.sock"
EOF
exec containerd --config containerd.toml --log-level warn
