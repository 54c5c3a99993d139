# Prepares what a machine has for itself: processes, /run, /etc, /opt, /var/lib and a view of its own network devices.
# $1 is the directory with tulled's files on that host, $2 an empty one. This shell is then the machine's init: it reaps
# what others leave behind, and all ends with it.
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs "$2"
mkdir "$2/cgroup"
mount --rbind /sys/fs/cgroup "$2/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$2/cgroup" /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf || true # as systemd does; some kernels have none
for dir in etc opt var/lib; do
	mkdir -p "$2/$dir" "$2/work/$dir"
	mount -t overlay overlay -o "lowerdir=/$dir,upperdir=$2/$dir,workdir=$2/work/$dir" "/$dir"
done
mkdir -p /etc/docker
rm -rf /etc/docker/daemon.json* /etc/cni /opt/cni /var/lib/cni

# What holds overlays may not be one.
for engine in docker containerd; do
	mkdir -p "$2/$engine" "/var/lib/$engine"
	mount --bind "$2/$engine" "/var/lib/$engine"
done

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

mount -t tmpfs tmpfs /run
mkdir /run/lock /run/bin
ln -s "$1" /run/flannel
ln -s "$1/run" /run/tulle
echo ready
while :; do sleep 3600 & wait; done
