package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/agent"
	"tulle/internal/fabric"
	"tulle/internal/trouble"
	"tulle/internal/web"
	"tulle/internal/web/webtest"
	"tulle/subnet"
)

// shown is what tests look at of what the page shows.
type shown struct {
	Summary struct {
		Waiting         bool
		Store, Backend  string
		Networks        []string
		Hosts, Reserved int
		Refused         int
		Daemon          struct {
			Absent, Node, State string
			Ready               bool
		}
	}
	Hosts []struct {
		Lease, Node, State, Reason string
		Told, Tells                int
		Here                       bool
	}
	Reach struct {
		Asked, Ways, More, Odd int
		Pairs                  [][3]int
		Rows                   []struct {
			From, To           int
			Family, Way, State string
			Size, Full         int
		}
		Suspects []struct {
			Host, Hosts int
			Silent      bool
		}
	}
	Config   struct{ Text string }
	Problems struct {
		All  []struct{ Code, Severity, Where, Subject, Text, Remedy string }
		More int
	}
}

// serve runs fn in a bubble in which the page shows a network.
func serve(t *testing.T, n func() *webtest.Network, config web.Config, fn func(*testing.T, *webtest.Network, http.Handler)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := n()
		config.Store, config.Daemon = n, n
		s, err := web.New(config)
		if err != nil {
			t.Fatal(err)
		}
		handler, err := s.Handler()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Errorf("Run() = %v", err)
			}
		})
		synctest.Wait()
		fn(t, n, handler)
		cancel()
		wg.Wait()
		n.Close()
	})
}

func hosts(count int) func() *webtest.Network {
	return func() *webtest.Network { return webtest.NewNetwork(count) }
}

// ask sends a request to 127.0.0.1, with changes.
func ask(ctx context.Context, h http.Handler, path string, change func(*http.Request)) *httptest.ResponseRecorder {
	ctx = context.WithValue(ctx, http.LocalAddrContextKey, net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:8474")))
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	r.Host = "127.0.0.1:8474"
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

var modelOf = regexp.MustCompile(`(?s)<script type="application/json" id="model">(.*?)</script>`)

// look returns what the page shows to somebody who opens it now.
func look(t *testing.T, h http.Handler) (page shown) {
	t.Helper()
	w := ask(t.Context(), h, "/", nil)
	found := modelOf.FindStringSubmatch(w.Body.String())
	if w.Code != http.StatusOK || found == nil {
		t.Fatalf("the page is %d %s", w.Code, w.Body)
	}
	if err := json.Unmarshal([]byte(found[1]), &page); err != nil {
		t.Fatal(err)
	}
	return page
}

func TestPage(t *testing.T) {
	serve(t, hosts(20), web.Config{}, func(t *testing.T, n *webtest.Network, h http.Handler) {
		n.Break(1, "unreachable", 7)
		n.Break(2, "unreachable", 7, 3)
		n.Break(3, "narrow", 4)
		n.Put("subnets/10.99.1.0-24", `{"PublicIP":"192.0.2.1","BackendType":"vxlan"}`, 0)
		n.Put("subnets/rubbish", `{}`, 0)
		p := look(t, h)
		if s := p.Summary; s.Waiting || s.Store != "" || s.Hosts != 21 || s.Reserved != 1 || s.Refused != 1 || s.Backend != "vxlan" || len(s.Networks) != 2 {
			t.Errorf("summary %+v", s)
		}
		if !strings.Contains(p.Summary.Daemon.Absent, "no tulled answers") {
			t.Errorf("of tulled it says %+v", p.Summary.Daemon)
		}
		if h1, h7, odd := p.Hosts[0], p.Hosts[6], p.Hosts[20]; h1.Tells != 1 || h7.Told != 2 || h7.Node != "h7" || odd.State != "refused" || !strings.Contains(odd.Reason, "not inside the network") {
			t.Errorf("hosts %+v, %+v, %+v", h1, h7, odd)
		}
		r := p.Reach
		if r.Asked != 20 || r.Ways != 4 || r.Odd != 0 || fmt.Sprint(r.Pairs) != "[[0 6 2] [1 2 2] [1 6 2] [2 3 1]]" {
			t.Errorf("reach %+v", r)
		}
		if first, last := r.Rows[0], r.Rows[3]; first.To != 6 || first.State != "unreachable" || last.State != "narrow" || last.Size != 1350 || last.Full != 1450 {
			t.Errorf("rows %+v", r.Rows)
		}
		if len(r.Suspects) != 1 || r.Suspects[0].Host != 6 || r.Suspects[0].Hosts != 2 || !r.Suspects[0].Silent {
			t.Errorf("suspects %+v", r.Suspects)
		}
		codes := map[string]string{}
		for _, problem := range p.Problems.All {
			if problem.Remedy == "" || problem.Where != "store" {
				t.Errorf("problem %+v", problem)
			}
			codes[problem.Code] = problem.Subject
		}
		if codes["key.unreadable"] != "" || codes["store.key-unreadable"] != "subnets/rubbish" || codes["peer.refused"] != "10.99.1.0-24" || codes["config.warning"] == "" {
			t.Errorf("problems %+v", p.Problems.All)
		}
	})
}

func TestDaemonOfThisHost(t *testing.T) {
	serve(t, hosts(4), web.Config{}, func(t *testing.T, n *webtest.Network, h http.Handler) {
		n.Break(2, "narrow", 3) // which this host knows better
		st := agent.Status{Node: "h2", Ready: true, Degraded: "the store is silent", Networks: []fabric.Status{{Lease: &fabric.LeaseStatus{Subnets: []netip.Prefix{webtest.Subnets(2).V4, webtest.Subnets(2).V6}}}}}
		st.Troubles.Add(trouble.New(trouble.ForwardBlocked, "filter FORWARD", "drops"))
		n.Run(st, agent.PeerReports{Asked: true, Peers: []agent.PeerReport{
			{Lease: webtest.Lease(3), Verdicts: []agent.Verdict{{Family: "ipv4", Way: "fabric", State: "unreachable", Full: 1450}, {Family: "ipv4", Way: "underlay", State: "well"}}},
			{Lease: webtest.Lease(4), Verdicts: []agent.Verdict{{Family: "ipv6", Way: "underlay", State: "narrow", Size: 1280, Full: 1500}}},
		}})
		p := look(t, h)
		if d := p.Summary.Daemon; d.Absent != "" || d.Node != "h2" || !d.Ready || d.State != "ready, degraded: the store is silent" {
			t.Errorf("daemon %+v", d)
		}
		if p.Hosts[0].Here || !p.Hosts[1].Here {
			t.Errorf("hosts %+v", p.Hosts)
		}
		if fmt.Sprint(p.Reach.Pairs) != "[[1 2 2] [1 3 1]]" || p.Reach.Ways != 2 {
			t.Errorf("reach %+v", p.Reach)
		}
		if first := p.Problems.All[0]; first.Where != "this host" || first.Code != "forward.blocked" || first.Remedy == "" {
			t.Errorf("problems %+v", p.Problems.All)
		}
		st.Node = "h9" // of another network that has the same addresses
		n.Run(st, agent.PeerReports{Asked: true})
		if p := look(t, h); p.Hosts[1].Here || p.Reach.Ways != 1 {
			t.Errorf("a stranger's tulled speaks for h2: %+v", p.Hosts[1])
		}
	})
}

// What stands in the store may be anything.
func TestForgedComplaints(t *testing.T) {
	serve(t, hosts(3), web.Config{}, func(t *testing.T, n *webtest.Network, h http.Handler) {
		bad := func(lease string, change func(*subnet.BadPeer)) subnet.BadPeer {
			p := subnet.BadPeer{Lease: lease, Family: "ipv4", Way: "fabric", State: subnet.PeerUnreachable}
			change(&p)
			return p
		}
		n.Complain(subnet.Complaint{Node: "h1", Lease: webtest.Lease(1), More: 1 << 40, Peers: []subnet.BadPeer{
			bad(webtest.Lease(2), func(*subnet.BadPeer) {}),
			bad(webtest.Lease(2), func(p *subnet.BadPeer) { p.Family = "ipx" }),
			bad(webtest.Lease(2), func(p *subnet.BadPeer) { p.Way = "" }),
			bad(webtest.Lease(2), func(p *subnet.BadPeer) { p.State = "<b>" }),
			bad(webtest.Lease(3), func(p *subnet.BadPeer) { p.Size = -1 }),
			bad(webtest.Lease(1), func(*subnet.BadPeer) {}),
			bad(webtest.Lease(9), func(*subnet.BadPeer) {}),
		}})
		n.Complain(subnet.Complaint{Node: "h9", Lease: webtest.Lease(3), Peers: []subnet.BadPeer{bad(webtest.Lease(2), func(*subnet.BadPeer) {})}})
		n.Complain(subnet.Complaint{Node: "gone", Lease: webtest.Lease(9), Peers: []subnet.BadPeer{bad(webtest.Lease(2), func(*subnet.BadPeer) {})}})
		n.SetUnreadable(subnet.Problem{Key: "claims/complaints/h3", Reason: "no JSON"})
		p := look(t, h)
		if p.Reach.Ways != 1 || p.Reach.Odd != 8 || p.Reach.More != 1<<31-1 || len(p.Reach.Suspects) != 0 {
			t.Errorf("reach %+v", p.Reach)
		}
		if last := p.Problems.All[len(p.Problems.All)-1]; last.Subject != "claims/complaints/h3" {
			t.Errorf("problems %+v", p.Problems.All)
		}
	})
}

// Everybody complains of twenty, which is all that a complaint holds.
func TestManyComplaints(t *testing.T) {
	const count = 1000
	serve(t, hosts(count), web.Config{}, func(t *testing.T, n *webtest.Network, h http.Handler) {
		for i := 1; i <= count; i++ {
			var others []int
			for k := range 20 {
				others = append(others, 1+(i+k)%count)
			}
			n.Break(i, "unreachable", others...)
		}
		w := ask(t.Context(), h, "/", nil)
		p := look(t, h)
		if len(p.Reach.Pairs) != 20*count || p.Reach.Ways != 20*count || len(p.Reach.Rows) > 200 || len(p.Reach.Suspects) > 20 {
			t.Errorf("%d pairs, %d ways, %d rows, %d suspects", len(p.Reach.Pairs), p.Reach.Ways, len(p.Reach.Rows), len(p.Reach.Suspects))
		}
		if w.Body.Len() > 2<<20 {
			t.Errorf("the page has %d bytes", w.Body.Len())
		}
	})
}

func TestStoreAway(t *testing.T) {
	serve(t, hosts(3), web.Config{}, func(t *testing.T, n *webtest.Network, h http.Handler) {
		n.Break(1, "unreachable", 2)
		look(t, h)
		n.Away(errors.New("dial https://root:" + webtest.Canary + "@etcd: refused"))
		<-time.After(time.Minute)
		p := look(t, h)
		if p.Summary.Store != "dial https://etcd: refused" || p.Summary.Hosts != 3 || p.Reach.Ways != 1 || p.Config.Text == "" {
			t.Errorf("without the store: %+v, %+v, %+v", p.Summary, p.Reach, p.Config)
		}
		if p.Problems.All[0].Code != "store.unreachable" {
			t.Errorf("problems %+v", p.Problems.All)
		}
		n.Away(nil)
		<-time.After(time.Minute)
		if p := look(t, h); p.Summary.Store != "" {
			t.Errorf("with the store again: %+v", p.Summary)
		}
	})
}

func TestNoNetwork(t *testing.T) {
	serve(t, func() *webtest.Network { n := webtest.NewNetwork(0); n.Delete("config"); return n }, web.Config{}, func(t *testing.T, n *webtest.Network, h http.Handler) {
		p := look(t, h)
		if p.Summary.Waiting || len(p.Summary.Networks) != 0 || len(p.Problems.All) != 1 || p.Problems.All[0].Code != "config.missing" {
			t.Errorf("without a configuration: %+v, %+v", p.Summary, p.Problems)
		}
		n.Put("config", `{"Network":"10.5.0.0/16","SubnetLen":12}`, 0)
		<-time.After(time.Minute)
		if p := look(t, h); len(p.Problems.All) != 1 || p.Problems.All[0].Code != "config.refused" || !strings.Contains(p.Config.Text, "SubnetLen") {
			t.Errorf("with a bad configuration: %+v, %+v", p.Config, p.Problems)
		}
	})
}

// No answer holds what is secret, nor what a browser would take for more than text.
func TestNothingButText(t *testing.T) {
	const hostile = "</script><img src=x onerror=alert(1)>\x1b[2J\u202e"
	serve(t, hosts(3), web.Config{}, func(t *testing.T, n *webtest.Network, h http.Handler) {
		n.Put("config", `{"Network":"10.32.0.0/16","Comment":"`+html.EscapeString("x")+`</script><img src=x>","Backend":{"Type":"vxlan","psk":"`+webtest.Canary+`\"`+webtest.Canary+`"}}`, 0)
		n.PutLease("10.32.77.0-24", subnet.Attrs{BackendType: hostile})
		n.Put("subnets/"+hostile, hostile, 0)
		n.SetUnreadable(subnet.Problem{Key: hostile, Reason: hostile})
		st := agent.Status{Node: hostile, Reason: hostile + ` {"password":"` + webtest.Canary + `"}`}
		st.Troubles.Add(trouble.New(trouble.StoreUnreachable, hostile, hostile+" http://u:"+webtest.Canary+"@h"))
		n.Run(st, agent.PeerReports{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan *httptest.ResponseRecorder)
		go func() { done <- ask(ctx, h, "/events", nil) }()
		<-time.After(10 * time.Second)
		page := ask(t.Context(), h, "/", nil).Body.String()
		cancel()
		stream := (<-done).Body.String()
		for name, text := range map[string]string{"page": page, "stream": stream} {
			if !strings.Contains(text, "10.32.77.0-24") || !strings.Contains(text, "hidden") {
				t.Errorf("the %s lacks what it should show: %s", name, text)
			}
			text = strings.ReplaceAll(text, `\\`, "") // of what was escaped before it became JSON
			for _, bad := range []string{webtest.Canary, "<img", "\x1b", "\u202e", `\u001b`, `\u202e`} {
				if strings.Contains(text, bad) {
					t.Errorf("the %s holds %q", name, bad)
				}
			}
		}
		if count := strings.Count(page, "</script>"); count != 2 {
			t.Errorf("the page ends %d scripts, want its 2", count)
		}
	})
}
