package main

import (
	"strings"
	"testing"

	"tulle/internal/settings"
)

// What the environment says, the command line overrules; and help shows none of it.
func TestSettingsFromEnvironment(t *testing.T) {
	list, _, err := newRootCommand().Find([]string{"leases", "list"})
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"TULLED_ETCD_ENDPOINTS": "http://a:1, http://b:2", "FLANNELD_ETCD_PREFIX": "/flannel", "TULLED_ETCD_PASSWORD": "hunter2",
		"TULLED_ETCD_USERNAME": "env", "TULLED_JSON": "true",
	}
	if err := list.ParseFlags([]string{"--etcd-username", "flag"}); err != nil {
		t.Fatal(err)
	}
	if err := fromEnvironment(list.Flags(), func(name string) (string, bool) { v, ok := env[name]; return v, ok }); err != nil {
		t.Fatal(err)
	}
	for flag, want := range map[string]string{
		settings.EtcdEndpoints().Flag(): "http://a:1, http://b:2",
		settings.EtcdPrefix().Flag():    "/flannel",
		settings.EtcdUsername().Flag():  "flag",
		settings.EtcdPassword().Flag():  "hunter2",
		settings.EtcdCAFile().Flag():    "",
		"json":                          "false",
	} {
		if got := list.Flags().Lookup(flag).Value.String(); got != want {
			t.Errorf("--%s is %q, want %q", flag, got, want)
		}
	}
	if help := list.UsageString(); strings.Contains(help, "hunter2") {
		t.Errorf("help shows the password:\n%s", help)
	}
}
