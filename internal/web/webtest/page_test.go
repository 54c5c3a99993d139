package webtest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"tulle/internal/agent"
	"tulle/internal/fabric"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

// TestBrowser clicks through the page in a real browser. One serves all, each test in a tab of its own: to start it takes longest.
func TestBrowser(t *testing.T) {
	browser := browse(t)
	for _, tt := range []struct {
		name  string
		test  func(*testing.T, context.Context)
		short bool // part of a short run: what the others add to it happens in the browser
	}{
		{"Hosts", hosts, false},
		{"BrokenAndBack", brokenAndBack, true},
		{"Keyboard", keyboard, false},
		{"Themes", themes, false},
		{"Phone", phone, false},
		{"Named", named, false},
		{"ThousandHosts", thousandHosts, false},
	} {
		if tt.short || !testing.Short() {
			t.Run(tt.name, func(t *testing.T) { tt.test(t, browser) })
		}
	}
}

// troubled is a network in which there is something of everything.
func troubled() *Network {
	n := NewNetwork(20)
	n.Break(1, "unreachable", 7)
	n.Break(2, "unreachable", 7)
	n.Break(3, "narrow", 4)
	n.Put("subnets/10.99.1.0-24", `{"PublicIP":"192.0.2.1","BackendType":"vxlan"}`, 0)
	n.Put("subnets/10.32.200.0-24", `{"PublicIP":"192.0.2.2","BackendType":"vxlan","Tulle":{"Node":"printer-room"}}`, 0)
	n.Put("subnets/rubbish", `{}`, 0)
	st := agent.Status{Node: "h2", Version: "v1.2.3", Reason: "packets are dropped", Networks: []fabric.Status{{Lease: &fabric.LeaseStatus{Subnets: []netip.Prefix{Subnets(2).V4, Subnets(2).V6}}}}}
	st.Troubles.Add(trouble.New(trouble.ForwardBlocked, "ip filter FORWARD", "the chain FORWARD of table ip filter drops packets from 10.32.0.0/16: nft add rule ip filter FORWARD ip saddr 10.32.0.0/16 accept"))
	n.Run(st, agent.PeerReports{})
	return n
}

const (
	rows  = `document.querySelectorAll("#hosts-table tbody tr").length`
	first = `document.querySelector("#hosts-table tbody tr").textContent`
)

func hosts(t *testing.T, browser context.Context) {
	n := troubled()
	v := visit(t, browser, n)
	v.await(rows + ` === 22`)
	v.says("#network", "10.32.0.0/16, fc00:5::/48 over vxlan", true)
	v.says("#counts", "22", true)
	v.says("#daemon", "h2, not ready: packets are dropped", true)
	v.says("#problems", "nft add rule", true)
	v.says("#problems", "subnets/rubbish", true)
	v.says("#config-text", `"PSK": "hidden"`, true)

	v.press("/", "P", "R", "I", "N", "T", " ", "r", "e", "s", "e", "r", "v", "e", "d")
	v.await(rows + ` === 1 && ` + first + `.includes("printer-room")`)
	v.says("#hosts-count", "1 of 22 hosts", true)
	n.PutHost(21) // does not match, and does not undo the filter
	v.says("#hosts-count", "1 of 23 hosts", true)
	eval[int](v, `document.getElementById("hosts-filter").select(), 0`)
	v.press(kb.Backspace)
	v.await(rows + ` === 23`)

	choose := func(state string) {
		eval[int](v, fmt.Sprintf(`(s => { s.value = %q; s.dispatchEvent(new Event("change")); return 0 })(document.getElementById("hosts-state"))`, state))
	}
	for _, tt := range []struct {
		state string
		want  int
	}{{"told", 2}, {"tells", 3}, {"refused", 1}, {"reserved", 1}, {"", 23}} {
		choose(tt.state)
		v.await(fmt.Sprintf("%s === %d", rows, tt.want))
	}
	v.do(chromedp.Click(chromedp.CSS(`[data-sort=told]`)))
	v.await(first + `.includes("2 hosts do not reach it")`)
	v.do(chromedp.Click(chromedp.CSS(`[data-sort=node]`)))
	v.await(first + `.includes("10.99.1.0/24")`) // it has no node id
	v.await(`[...document.querySelectorAll("#hosts-table tbody tr")].map(r => r.cells[0].innerText).join().includes("h9,h10,h11")`)
	v.do(chromedp.Click(chromedp.CSS(`#reach-table a`)))
	v.await(`document.getElementById("hosts-filter").value === "h1"`)
}

func brokenAndBack(t *testing.T, browser context.Context) {
	n := NewNetwork(6)
	v := visit(t, browser, n)
	v.says("#live", "live", true)
	v.says("#reach-summary", "No host says that it does not reach another. 6 hosts answer of 6", true)
	eval[int](v, `(window.seen = 1, document.getElementById("hosts-filter").focus(), 0)`)
	v.picture("well")
	n.Break(2, "unreachable", 5)
	n.Break(3, "unreachable", 5)
	v.says("#reach-summary", "In 2 pairs of hosts", true)
	v.says("#reach-suspects", "h5: 2 of 5 hosts do not reach it", true)
	v.says("#hosts-table", "2 hosts do not reach it", true)
	v.says("#counts", "1 not reached by others", true)
	v.await(`document.querySelectorAll("#reach-table tbody tr").length === 2`)
	v.picture("broken")
	n.Mend(2)
	n.Mend(3)
	v.says("#reach-summary", "No host says", true)
	v.says("#hosts-table", "do not reach it", false)
	v.await(`document.getElementById("reach-bad").hidden`)
	if !eval[bool](v, `window.seen === 1 && document.activeElement.id === "hosts-filter"`) {
		t.Error("the page was loaded again, or lost the focus")
	}
	n.Away(fmt.Errorf("etcd is gone"))
	v.says("#store", "etcd is gone", true)
	n.Away(nil)
	v.await(`document.getElementById("store").hidden`)
}

func keyboard(t *testing.T, browser context.Context) {
	n := troubled()
	v := visit(t, browser, n)
	v.await(rows + ` === 22`)
	v.press(kb.Tab)
	if f := v.focused(); f != "Skip to the hosts" {
		t.Errorf("Tab leads first to %q", f)
	}
	var way []string
	for range 60 {
		v.press(kb.Tab)
		f := v.focused()
		way = append(way, f)
		if f == "config-text" {
			break
		}
	}
	for _, want := range []string{"Reach", "reach-only", "reach-map", "hosts-filter", "hosts-state", "pool-map-ipv4", "pool-map-ipv6", "config-text"} {
		found := false
		for _, f := range way {
			found = found || f == want
		}
		if !found {
			t.Errorf("Tab does not lead to %s: %q", want, way)
		}
	}
	eval[int](v, `document.getElementById("reach-map").focus(), 0`)
	v.says("#reach-at", "h1 → h1: itself", true)
	for range 6 {
		v.press(kb.ArrowRight)
	}
	v.says("#reach-at", "h1 → h7: no packets arrive", true)
	v.press(kb.ArrowDown, kb.ArrowDown, kb.Home, kb.ArrowRight, kb.ArrowRight, kb.ArrowRight)
	v.says("#reach-at", "h3 → h4: large packets do not arrive", true)
	n.Mend(3)
	v.says("#reach-at", "h3 → h4: nothing is said", true)
	eval[int](v, `document.getElementById("pool-map-ipv4").focus(), 0`)
	v.press(kb.ArrowRight)
	v.says("#pools", "10.32.1.0/24: leased, h1", true)
}

// contrast finds text that is hard to read on what is behind it (WCAG 2.2, 1.4.3), of elements that are to be seen.
const contrast = `(() => {
  const parse = c => c.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const bad = new Set();
  for (const e of document.body.querySelectorAll("*")) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility() || /SCRIPT|OPTION/.test(e.tagName)) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) bad.add(e.tagName + "." + e.className + " " + getComputedStyle(e).color);
  }
  return [...bad];
})()`

func themes(t *testing.T, browser context.Context) {
	v := visit(t, browser, troubled())
	v.await(rows + ` === 22`)
	const drawn = `document.getElementById("pool-map-ipv4").toDataURL()`
	grounds := map[string]bool{}
	for _, theme := range []string{"light", "dark"} {
		v.emulate(&emulation.MediaFeature{Name: "prefers-color-scheme", Value: theme})
		v.await(fmt.Sprintf(`matchMedia("(prefers-color-scheme: %s)").matches`, theme))
		grounds[eval[string](v, `getComputedStyle(document.body).backgroundColor`)] = true
		v.await(drawn + ` !== window.drawn`) // maps are drawn anew
		eval[int](v, `(window.drawn = `+drawn+`, 0)`)
		if bad := eval[[]string](v, contrast); len(bad) > 0 {
			t.Errorf("hard to read where it is %s: %q", theme, bad)
		}
		v.picture(theme)
	}
	if len(grounds) != 2 {
		t.Errorf("light and dark have the grounds %v", grounds)
	}
}

func phone(t *testing.T, browser context.Context) {
	v := visit(t, browser, troubled())
	v.resize(360, 740)
	v.await(rows + ` === 22`)
	v.await(`document.documentElement.scrollWidth <= 360`)
	v.await(`document.getElementById("reach-map").getBoundingClientRect().right <= 360`)
	v.picture("phone")
}

// named looks at what a screen reader is told.
func named(t *testing.T, browser context.Context) {
	v := visit(t, browser, troubled())
	v.await(rows + ` === 22`)
	// What is below the screen is told of once it has been laid out.
	eval[int](v, `document.querySelectorAll("section").forEach(s => s.style.contentVisibility = "visible"), document.body.offsetHeight`)
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	tree, err := chromedp.Call(ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, node := range tree.Nodes {
		if node.Ignored || node.Role == nil {
			continue
		}
		role, name := fmt.Sprint(node.Role.Value), ""
		if node.Name != nil {
			name = fmt.Sprint(node.Name.Value)
		}
		role, name = unquote(role), unquote(name)
		count[role]++
		switch role {
		case "button", "checkbox", "combobox", "searchbox", "link", "application", "region", "navigation", "table", "heading", "list":
			if name == "" && role != "list" {
				t.Errorf("a %s has no name", role)
			}
		}
	}
	for role, want := range map[string]int{"main": 1, "banner": 1, "navigation": 1, "search": 1, "searchbox": 1, "application": 3, "table": 3} {
		if count[role] != want {
			t.Errorf("there are %d of the role %s, want %d: %v", count[role], role, want, count)
		}
	}
	if twice := eval[[]string](v, `(ids => ids.filter((id, i) => ids.indexOf(id) !== i))([...document.querySelectorAll("[id]")].map(e => e.id))`); len(twice) > 0 {
		t.Errorf("ids that are there twice: %q", twice)
	}
	if lost := eval[[]string](v, `[...document.querySelectorAll("[aria-labelledby],[aria-describedby],[aria-controls]")].flatMap(e => ["aria-labelledby", "aria-describedby", "aria-controls"].map(a => e.getAttribute(a)).filter(id => id && !document.getElementById(id)))`); len(lost) > 0 {
		t.Errorf("ids that nothing has: %q", lost)
	}
}

// unquote takes a JSON text as what it says.
func unquote(text string) string {
	if len(text) > 1 && text[0] == '"' {
		return text[1 : len(text)-1]
	}
	return text
}

// quick is how long a page of 1,000 hosts may take from the beginning of the navigation until it is on the screen, on a machine that does nothing else:
// where quickEnv is set, as by make test-web.
const (
	quick    = time.Second
	quickEnv = "TULLE_WEB_QUICK"
)

func thousandHosts(t *testing.T, browser context.Context) {
	n := NewNetwork(1000)
	for i := 1; i <= 1000; i++ {
		if i != 7 {
			n.Break(i, "unreachable", 7)
		}
	}
	n.Break(500, "unreachable", 7, 900)
	n.PutLease("10.63.255.0-24", subnet.Attrs{Node: "far", BackendType: "vxlan", Public: ip.Dual[netip.Addr]{V4: netip.MustParseAddr("192.0.2.9")}})
	v := visit(t, browser, n)
	deadline := time.Now().Add(patience)
	for {
		v.await(`performance.getEntriesByName("shown").length > 0 && ` + rows + ` === 1001`)
		took := time.Duration(eval[float64](v, `performance.getEntriesByName("shown")[0].duration`) * float64(time.Millisecond))
		t.Logf("1,001 hosts were on the screen after %s", took.Round(time.Millisecond))
		if took < quick || os.Getenv(quickEnv) == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("each time 1,001 hosts took longer than %s", quick)
		}
		v.load()
	}
	v.says("#reach-suspects", "h7: 999 of 1,000 hosts do not reach it", true)
	v.picture("thousand")
	v.press("/", "h", "5", "0", "0")
	v.await(rows + ` === 1`)
	eval[int](v, `document.getElementById("reach-map").focus(), 0`)
	v.says("#reach-at", "h1 to", true)
	if size := eval[float64](v, `document.getElementById("reach-map").getBoundingClientRect().width`); size < 300 || size > 720 {
		t.Errorf("the map is %g pixels wide", size)
	}
	v.says("#reach-at", "no packets arrive in", true)
	v.press(kb.Enter)
	v.await(`!document.getElementById("reach-back").hidden`)
	for range 6 {
		v.press(kb.ArrowRight)
	}
	v.says("#reach-at", "h1 → h7: no packets arrive", true)
	v.picture("closer")
	v.press(kb.Escape)
	v.await(`document.getElementById("reach-back").hidden`)
}
