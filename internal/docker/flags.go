package docker

import (
	"fmt"
	"slices"
	"strings"

	"tulle/subnet"
)

// flag is one of dockerd's command line.
type flag struct{ name, value, text string }

// Flags of dockerd's that take a value, of those that matter here; and its short ones, as what they are short for.
func valuedFlags() []string {
	return []string{"bip", "bip6", "bridge", "bridge-accept-fwmark", "config-file", "default-address-pool", "default-gateway",
		"default-gateway-v6", "fixed-cidr", "fixed-cidr-v6", "mtu"}
}

func shortFlags() map[byte]string {
	return map[byte]string{'b': "bridge", 'G': "group", 'g': "graph", 'H': "host", 'l': "log-level", 'p': "pidfile"}
}

// parseFlags reads a command line as dockerd does (github.com/spf13/pflag), of the flags that matter.
func parseFlags(args []string) []flag {
	var list []flag
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			break
		}
		f := flag{text: arg}
		valued, given := false, false
		if long, ok := strings.CutPrefix(arg, "--"); ok {
			f.name, f.value, given = strings.Cut(long, "=")
			valued = slices.Contains(valuedFlags(), f.name)
		} else if shorts, ok := strings.CutPrefix(arg, "-"); ok {
			// Several may stand together; the first that takes a value takes the rest.
			at := strings.IndexFunc(shorts, func(r rune) bool { return r < 0x80 && shortFlags()[byte(r)] != "" })
			if at < 0 {
				continue
			}
			f.name, f.value = shortFlags()[shorts[at]], strings.TrimPrefix(shorts[at+1:], "=")
			valued, given = true, len(shorts) > at+1
		} else {
			continue
		}
		if valued && !given && i+1 < len(args) {
			i++
			f.value = args[i]
			f.text += " " + args[i]
		}
		list = append(list, f)
	}
	return list
}

// Check returns an error if dockerd has flags that keep it from starting with the settings: it takes no setting from both
// its command line and its file, and some flags do not go with a lease at all.
func (d *Daemon) Check(settings []Setting, lease subnet.Subnets) error {
	var clashing []string
	for _, f := range parseFlags(d.Args) {
		twice := slices.ContainsFunc(settings, func(s Setting) bool { return s.Key == f.name })
		if twice || slices.ContainsFunc(limits(), func(l limit) bool { return l.name == f.name && l.forbids(f.value, lease) }) {
			clashing = append(clashing, f.text)
		}
	}
	if len(clashing) == 0 {
		return nil
	}
	flags := strings.Join(clashing, " and ")
	if d.PID == 0 {
		return fmt.Errorf("dockerd is to start with %s, by %s, and would not with the lease in its configuration: take that off its command line and try again", flags, d.Unit)
	}
	return fmt.Errorf("dockerd runs with %s, and would not start again with the lease in its configuration: "+
		"take that off its command line (see: systemctl cat docker), restart it, and try again", flags)
}
