package doctor

import (
	"regexp"
	"strings"
)

// special is what a shell takes for more than words. What is found of another host rests on what that has answered, or whoever may write to the store, and
// commands are pasted into a shell.
const special = ";&|$`<>()\\!*?~#'\"\n\r\x00"

var undone = regexp.MustCompile(`^nft delete rule (\S+ \S+ \S+) handle "\$\(nft -a list chain (\S+ \S+ \S+) \| sed -n 's/\.\* accept # handle //p' \| head -n 1\)"$`) // of Tulle's making

// Distrust leaves out commands of findings of all hosts but local that are more than words, and lets none of theirs be carried out here.
func (r *Report) Distrust(local string) {
	for _, list := range [][]Finding{r.Findings, r.Advice} {
		for i := range list {
			list[i].distrust(local)
		}
	}
}

func (f *Finding) distrust(local string) {
	for i := range f.Follows {
		f.Follows[i].distrust(local)
	}
	if f.Host == local {
		return
	}
	f.Safe = false
	for _, command := range f.Fix {
		if !words(command) {
			f.Fix, f.Undo = nil, nil
			f.Remedy = "Run tulle doctor on that host, which prints the commands."
			return
		}
	}
	for _, command := range f.Undo {
		if m := undone.FindStringSubmatch(command); !words(command) && (m == nil || strings.ContainsAny(m[1]+m[2], special)) {
			f.Undo = nil
			return
		}
	}
}

// usual are the commands of the doctor's making that may be pasted for another host. Others would have it run or link files that somebody else can put
// there, as by modprobe of iptables(8), kernel/modprobe of sysctl(8), and ln(1).
var usual = regexp.MustCompile(`^(` + strings.Join([]string{
	`(nsenter --net=\S+ )?ip (-6 )?(link set dev \S+ (up|down|mtu \d+|arp (on|off)|master \S+|nomaster)|(address|route|rule|neigh) .*)`,
	`sysctl -w net/\S+=\w+`,
	`systemctl (start|stop|restart) tulled`,
	`nft insert rule \w+ \S+ \S+ .* accept`,
	`ip6?tables(-\w+)? -t \w+ -[ID] [\w.:]\S* -p udp --dport \d+ -j ACCEPT`,
	`firewall-cmd --permanent --zone=trusted( --(add|remove)-source=\S+)+`,
	`firewall-cmd --permanent --(add|remove)-port=\d+/udp`,
	`firewall-cmd --reload`,
	`ufw allow (out )?\d+/udp`,
	`tulle docker configure --restart`,
	`docker restart [\w.]\S*`,
}, "|") + `)$`)

// words reports whether a command of another host is a usual one, and no more than its words.
func words(command string) bool {
	return !strings.ContainsAny(command, special) && usual.MatchString(command) && !strings.Contains(command, "..") && !strings.Contains(command, " encap ")
}
