//go:build linux

package dockertest_test

import (
	"encoding/json"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"tulle/internal/docker/dockertest"
	"tulle/internal/doctor"
	"tulle/internal/trouble"
)

// restartsDocker is what systemd does for a command of the doctor's.
const restartsDocker = `#!/bin/sh
[ "$*" = daemon-reload ] && exit
[ "$*" = "restart docker" ] || exit 1
kill "$(cat /run/docker.pid)"
while [ -e /run/docker.pid ]; do sleep 0.1; done
setsid dockerd >/run/dockerd.log 2>&1 </dev/null &
until docker version >/dev/null 2>&1; do sleep 0.1; done
`

// The doctor knows Docker's networks and containers, by their names; and what it prints mends them when it is pasted.
func TestDoctor(t *testing.T) {
	m := newMachine(t, upLab(t, 1).Hosts[0], engines(t)[0])
	m.Program(t, "systemctl", restartsDocker)
	writeFile(t, m, "/run/earlier.env", "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.251.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n")
	m.Run(t, "mkdir", "-p", "/run/systemd/system")
	m.Run(t, "tulle", "docker", "configure", "--subnet-file", "/run/earlier.env", "--restart")
	pasteFix(t, m, trouble.BridgeStale, "tulle docker configure --restart")

	c := runContainer(t, m, "bridge", "web")
	pid := m.Run(t, "docker", "inspect", "--format={{.State.Pid}}", "web")
	m.Run(t, "nsenter", "--net=/proc/"+pid+"/ns/net", "ip", "route", "del", "default")
	if f := pasteFix(t, m, trouble.ContainerRouteless, " ip route add default via ", "web"); f.Subject != "web" {
		t.Errorf("%+v is not about the container by its name", f)
	}
	for _, who := range []string{c.addr.V4.String(), m.Run(t, "docker", "inspect", "--format={{.Id}}", "web")[:12]} {
		if r := askDoctor(t, m, who); len(r.Findings) > 0 || len(r.Untold) > 0 {
			t.Errorf("%s, who is well: %+v", who, r)
		}
	}
	if out, err := m.Try(t, "tulle", "doctor", "nobody"); err == nil || !strings.Contains(err.Error(), "exit status 2") || !strings.Contains(out, `no container "nobody"`) {
		t.Errorf("of a container that is not there it says %v", err)
	}

	m.Run(t, "sh", "-c", "nft add table ip foreign && nft add chain ip foreign forward '{ type filter hook forward priority 0; }' && nft add rule ip foreign forward ip daddr 10.244.0.0/16 ip saddr 10.244.0.0/16 drop")
	pasteFix(t, m, trouble.ForwardBlocked, "nft insert rule ip foreign forward ")
}

// pasteFix waits for the one finding, follows what it says, and waits until nothing is found.
func pasteFix(t *testing.T, m *dockertest.Machine, code trouble.Code, fix string, args ...string) (found doctor.Finding) {
	t.Helper()
	m.Retry(t, healTimeout, "the doctor finds "+string(code), func() error {
		r := askDoctor(t, m, args...)
		if len(r.Findings) != 1 || r.Findings[0].Code != code || !slices.ContainsFunc(r.Findings[0].Fix, func(c string) bool { return strings.Contains(c, fix) }) {
			text, _ := json.Marshal(r)
			return errors.New(string(text))
		}
		found = r.Findings[0]
		return nil
	})
	for _, command := range found.Fix {
		m.Run(t, "bash", "-ec", command)
	}
	m.Retry(t, healTimeout, "the doctor finds nothing after "+strings.Join(found.Fix, "; "), func() error {
		if r := askDoctor(t, m); len(r.Findings) > 0 || len(r.Untold) > 0 {
			text, _ := json.Marshal(r)
			return errors.New(string(text))
		}
		return nil
	})
	return found
}

func askDoctor(t *testing.T, m *dockertest.Machine, args ...string) (r doctor.Report) {
	t.Helper()
	out, err := m.Command(t.Context(), append([]string{"tulle", "doctor", "--json"}, args...)...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() == 2) {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return r
}
