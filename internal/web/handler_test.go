package web_test

import (
	"context"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/web"
	"tulle/internal/web/webtest"
)

func TestGuard(t *testing.T) {
	serve(t, hosts(1), web.Config{Host: "tulle.example"}, func(t *testing.T, _ *webtest.Network, h http.Handler) {
		for _, tt := range []struct {
			name string
			at   string // address that the request comes to; empty: 127.0.0.1
			path string
			do   func(*http.Request)
			want int
		}{
			{name: "as it should be", want: http.StatusOK},
			{name: "localhost", do: host("localhost:8474"), want: http.StatusOK},
			{name: "a forwarded port", do: host("LOCALHOST:9000"), want: http.StatusOK},
			{name: "no port", do: host("127.0.0.1"), want: http.StatusOK},
			{name: "IPv6", at: "[::1]:8474", do: host("[::1]:8474"), want: http.StatusOK},
			{name: "the name that was given", at: "192.0.2.1:8474", do: host("tulle.example:8474"), want: http.StatusOK},
			{name: "the address that it comes to", at: "192.0.2.1:8474", do: host("192.0.2.1:8474"), want: http.StatusOK},
			{name: "mapped", at: "[::ffff:192.0.2.1]:8474", do: host("192.0.2.1:8474"), want: http.StatusOK},
			{name: "another name", do: host("evil.example:8474"), want: http.StatusMisdirectedRequest},
			{name: "a name that looks alike", do: host("127.0.0.1.evil.example"), want: http.StatusMisdirectedRequest},
			{name: "localhost of another", do: host("localhost.evil.example"), want: http.StatusMisdirectedRequest},
			{name: "no name", do: host(""), want: http.StatusMisdirectedRequest},
			{name: "another address", do: host("192.0.2.1"), want: http.StatusMisdirectedRequest},
			{name: "localhost from elsewhere", at: "192.0.2.1:8474", do: host("localhost"), want: http.StatusMisdirectedRequest},
			{name: "POST", do: func(r *http.Request) { r.Method = http.MethodPost }, want: http.StatusMethodNotAllowed},
			{name: "HEAD", do: func(r *http.Request) { r.Method = http.MethodHead }, want: http.StatusMethodNotAllowed},
			{name: "a link on another page", do: fetch("cross-site", "navigate"), want: http.StatusOK},
			{name: "its own script", do: fetch("same-origin", "cors"), want: http.StatusOK},
			{name: "the script of another page", path: "/events", do: fetch("cross-site", "cors"), want: http.StatusForbidden},
			{name: "of another port", path: "/events", do: fetch("same-site", "no-cors"), want: http.StatusForbidden},
			{name: "a script", path: "/static/main.js", want: http.StatusOK},
			{name: "the template", path: "/static/index.html", want: http.StatusNotFound},
			{name: "a folder", path: "/static/", want: http.StatusNotFound},
			{name: "above the folder", path: "/static/../web.go", want: http.StatusTemporaryRedirect},
			{name: "nothing", path: "/metrics", want: http.StatusNotFound},
		} {
			path := tt.path
			if path == "" {
				path = "/"
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // of the bubble: a stream would not end
			w := ask(ctx, h, path, func(r *http.Request) {
				if tt.at != "" {
					*r = *r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(tt.at))))
				}
				if tt.do != nil {
					tt.do(r)
				}
			})
			cancel()
			if w.Code != tt.want {
				t.Errorf("%s: %d %s, want %d", tt.name, w.Code, w.Body, tt.want)
			}
			header := w.Header()
			if !strings.HasPrefix(header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'; ") || strings.Contains(header.Get("Content-Security-Policy"), "unsafe") ||
				header.Get("X-Content-Type-Options") != "nosniff" || header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: headers %v", tt.name, header)
			}
		}
	})
}

func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

func fetch(site, mode string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Sec-Fetch-Site", site)
		r.Header.Set("Sec-Fetch-Mode", mode)
	}
}

// Scripts make elements of text by textContent and the like alone, and the page has nothing in it that the policy would refuse.
func TestScriptsMakeNoMarkup(t *testing.T) {
	risky := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacent|document\.write|DOMParser|setHTML|\beval\b|new Function|javascript:|\son[a-z]+=|\sstyle=|https?://`)
	files := os.DirFS("page")
	names, err := fs.Glob(files, "*")
	if err != nil || len(names) < 5 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if found := risky.FindString(line); found != "" && !strings.Contains(line, `xmlns="http://www.w3.org/2000/svg"`) {
				t.Errorf("%s:%d has %q", name, i+1, found)
			}
		}
		if lines := strings.Count(string(text), "\n"); lines > 500 {
			t.Errorf("%s has %d lines: split it", name, lines)
		}
	}
}

// stream is an open page.
type stream struct {
	stop func()

	mu   sync.Mutex
	text strings.Builder
}

func (s *stream) Header() http.Header { return http.Header{} }
func (s *stream) WriteHeader(int)     {}
func (s *stream) Flush()              {}

func (s *stream) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(text)
}

// take returns what was written since.
func (s *stream) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.text.Reset()
	return s.text.String()
}

func open(t *testing.T, h http.Handler) *stream {
	ctx, cancel := context.WithCancel(t.Context())
	s := &stream{}
	var wg sync.WaitGroup
	wg.Go(func() {
		ask(ctx, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { h.ServeHTTP(s, r) }), "/events", nil)
	})
	s.stop = func() { cancel(); wg.Wait() }
	return s
}

// read waits for a while of the bubble's time, and returns the events that came since.
func (s *stream) read(d time.Duration) (events []string) {
	<-time.After(d)
	synctest.Wait()
	for line := range strings.SplitSeq(s.take(), "\n") {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			events = append(events, data)
		}
	}
	return events
}

func TestEvents(t *testing.T) {
	serve(t, hosts(20), web.Config{}, func(t *testing.T, n *webtest.Network, h http.Handler) {
		s := open(t, h)
		if events := s.read(10 * time.Second); len(events) == 0 || !strings.Contains(strings.Join(events, ""), `"node":"h20"`) {
			t.Fatalf("at first there come %q", events)
		}
		if events := s.read(time.Minute); len(events) != 0 {
			t.Errorf("nothing changes, and there come %q", events)
		}
		n.Break(1, "unreachable", 7)
		events := s.read(3 * time.Second)
		if len(events) != 1 || !strings.Contains(events[0], `"pairs":[[0,6,2]]`) || strings.Contains(events[0], `"pools"`) || strings.Contains(events[0], `"config"`) {
			t.Errorf("a peer is not reached, and there come %q", events)
		}
		n.Mend(1)
		if events := s.read(3 * time.Second); len(events) != 1 || !strings.Contains(events[0], `"pairs":[]`) {
			t.Errorf("it is again, and there come %q", events)
		}
		for i := range 100 {
			n.PutHost(30 + i)
			<-time.After(100 * time.Millisecond)
		}
		if events := s.read(3 * time.Second); len(events) < 5 || len(events) > 12 || !strings.Contains(events[len(events)-1], `"h129"`) {
			t.Errorf("100 hosts come within ten seconds, and there come %d events", len(events))
		}
		asked := n.Asked()
		s.stop()
		n.Break(1, "unreachable", 7)
		n.PutHost(200)
		<-time.After(time.Hour)
		if more := n.Asked() - asked; more > 1 {
			t.Errorf("nobody looks, and the store was asked %d times", more)
		}
		if p := look(t, h); p.Reach.Ways != 1 || p.Summary.Hosts != 121 {
			t.Errorf("who looks again sees what was: %+v", p.Summary)
		}
	})
}

func TestStreamsAreBounded(t *testing.T) {
	serve(t, hosts(1), web.Config{}, func(t *testing.T, _ *webtest.Network, h http.Handler) {
		var all []*stream
		for range 32 {
			all = append(all, open(t, h))
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // of the bubble
		defer cancel()
		if w := ask(ctx, h, "/events", nil); w.Code != http.StatusServiceUnavailable {
			t.Errorf("one more stream is %d", w.Code)
		}
		if w := ask(t.Context(), h, "/", nil); w.Code != http.StatusOK {
			t.Errorf("the page beside many streams is %d", w.Code)
		}
		all[0].stop()
		again := open(t, h)
		if len(again.read(5*time.Second)) == 0 {
			t.Error("there is no place for a stream after one has ended")
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if !strings.Contains(again.take(), ": still here") {
			t.Error("a silent stream is not kept alive")
		}
		for _, s := range append(all[1:], again) {
			s.stop()
		}
	})
}
