//go:build linux

package netns_test

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"tulle/internal/netns"
)

// Who is in a namespace needs no CAP_SYS_ADMIN to do something there, as a service that has but few capabilities.
func TestDoInOwnNamespaceWithoutRights(t *testing.T) {
	const variable = "TULLE_TEST_WITHOUT_RIGHTS"
	switch os.Getenv(variable) {
	case "":
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), variable+"=drop")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	case "drop":
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0); err != nil {
			return // whoever may not drop it does not have it
		}
		t.Fatal(unix.Exec("/proc/self/exe", os.Args, []string{variable + "=run"}))
	}
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	for range 3 {
		done := false
		if err := ns.Do(func() error { done = true; return nil }); err != nil || !done {
			t.Errorf("done %t, %v", done, err)
		}
	}
}
