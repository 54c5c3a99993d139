package webtest

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"tulle/internal/web"
)

// patience is for a browser on a slow machine.
const patience = 60 * time.Second

// visitor is a page in a browser, and what went wrong there.
type visitor struct {
	t      *testing.T
	ctx    context.Context
	origin string

	mu     sync.Mutex
	errors []string
}

// serve shows a network, and returns where.
func serve(t *testing.T, n *Network) string {
	t.Helper()
	s, err := web.New(web.Config{Store: n, Daemon: n})
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
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		cancel()
		server.CloseClientConnections()
		server.Close()
		wg.Wait()
		n.Close()
	})
	return server.URL
}

// browse starts a browser.
func browse(t *testing.T) context.Context {
	t.Helper()
	// Root has no sandbox, and the browser sees the test's own page alone.
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium-headless-shell"), chromedp.NoSandbox, chromedp.DisableGPU)
	ctx, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start a browser: %v: hack/need chromium-headless-shell installs it on Debian", err)
	}
	return ctx
}

// visit opens a network's page in a tab of its own. When the test ends, nothing may have gone wrong in it.
func visit(t *testing.T, browser context.Context, n *Network) *visitor {
	t.Helper()
	origin := serve(t, n)
	ctx, stop := chromedp.NewContext(browser)
	t.Cleanup(stop)
	v := &visitor{t: t, ctx: ctx, origin: origin}
	if err := chromedp.Do(ctx); err != nil { // what it is made by bounds its life
		t.Fatal(err)
	}
	if err := chromedp.Listen(ctx, v.listen); err != nil {
		t.Fatal(err)
	}
	call(v, log.Enable, cdp.Empty{})
	call(v, runtime.Enable, cdp.Empty{})
	call(v, network.Enable, network.EnableParams{})
	v.resize(1280, 900)
	v.load()
	t.Cleanup(func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, e := range v.errors {
			t.Errorf("in the browser: %s", e)
		}
	})
	return v
}

func (v *visitor) load() { v.do(chromedp.Navigate(v.origin)) }

// listen takes down errors, and requests to other places.
func (v *visitor) listen(event any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	add := func(format string, args ...any) { v.errors = append(v.errors, fmt.Sprintf(format, args...)) }
	switch e := event.(type) {
	case *log.EventEntryAdded:
		add("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
	case *runtime.EventExceptionThrown:
		add("%s:%d: %s %s", e.ExceptionDetails.URL, e.ExceptionDetails.LineNumber+1, e.ExceptionDetails.Text, e.ExceptionDetails.Exception.Description)
	case *runtime.EventConsoleAPICalled:
		add("console.%s", e.Type)
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err != nil || u.Scheme != "http" || "http://"+u.Host != v.origin {
			add("a request to %s", e.Request.URL)
		}
	case *network.EventResponseReceived:
		if e.Response.Status != http.StatusOK {
			add("%d of %s", e.Response.Status, e.Response.URL)
		}
	}
}

func (v *visitor) do(actions ...chromedp.Action[chromedp.Void]) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		v.t.Fatal(err)
	}
}

func run[T any](v *visitor, action chromedp.Action[T]) T {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		v.t.Fatal(err)
	}
	return value
}

func call[P, R any](v *visitor, command cdp.Command[P, R], params P) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	if _, err := chromedp.Call(ctx, command, params); err != nil {
		v.t.Fatal(err)
	}
}

// eval returns what an expression is in the page.
func eval[T any](v *visitor, expression string) T {
	v.t.Helper()
	return run(v, chromedp.Evaluate[T](expression))
}

// await waits until an expression is true in the page.
func (v *visitor) await(expression string) {
	v.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !eval[bool](v, "Boolean("+expression+")") {
		select {
		case <-tick.C:
		case <-deadline:
			v.t.Fatalf("not true in time: %s; the page says: %.2000q", expression, eval[string](v, `document.querySelector("header").innerText + document.querySelector("main").innerText`))
		}
	}
}

// says waits until an element says something, or no longer.
func (v *visitor) says(selector, text string, want bool) {
	v.t.Helper()
	not := ""
	if !want {
		not = "!"
	}
	v.await(fmt.Sprintf("%sdocument.querySelector(%q).textContent.includes(%q)", not, selector, text))
}

// picture writes what the page looks like to the directory TULLE_WEB_SCREENSHOTS, if that is set.
func (v *visitor) picture(name string) {
	v.t.Helper()
	// What is below the screen is painted only for who goes there.
	eval[int](v, `document.querySelectorAll("section").forEach(s => s.style.contentVisibility = "visible"), 0`)
	png := run(v, chromedp.FullScreenshot(100))
	if dir := os.Getenv("TULLE_WEB_SCREENSHOTS"); dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			v.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".png"), png, 0o644); err != nil {
			v.t.Fatal(err)
		}
	}
}

// press presses keys, one after the other.
func (v *visitor) press(keys ...string) {
	v.t.Helper()
	for _, k := range keys {
		if k == "/" {
			// As a keyboard does it: what the page makes of the key keeps it from being written.
			call(v, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: k, Text: k})
			call(v, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyUp, Key: k})
			continue
		}
		v.do(chromedp.KeyEvent(k))
	}
}

// focused is the id of the element with the focus, or its text.
func (v *visitor) focused() string {
	v.t.Helper()
	return eval[string](v, `document.activeElement.id || document.activeElement.innerText`)
}

func (v *visitor) emulate(features ...*emulation.MediaFeature) {
	v.t.Helper()
	call(v, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
}

func (v *visitor) resize(width, height int64) {
	v.t.Helper()
	call(v, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1})
}
