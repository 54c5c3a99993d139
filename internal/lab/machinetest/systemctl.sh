#!/bin/sh
case "$*" in
daemon-reload)
	;;
"enable --now tulled")
	grep -q ExecStart=/usr/bin/tulled /etc/systemd/system/tulled.service || exit 1
	set -a
	. /etc/tulle/tulled.env
	setsid tulled >/run/tulled.log 2>&1 </dev/null &
	until tulle status >/dev/null 2>&1; do sleep 0.1; done
	;;
"restart docker")
	kill "$(cat /run/docker.pid)"
	while [ -e /run/docker.pid ]; do sleep 0.1; done
	setsid dockerd >/run/dockerd.log 2>&1 </dev/null &
	until docker version >/dev/null 2>&1; do sleep 0.1; done
	;;
*)
	echo "what is $*?"
	exit 1
	;;
esac
