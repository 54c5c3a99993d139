package web

import (
	"bytes"
	"embed"
	"html/template"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

//go:embed page
var page embed.FS

// policy lets a page have nothing but what this server has, and nobody put it into a frame (CSP level 3).
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the page.
func (s *Server) Handler() (http.Handler, error) {
	html, err := template.ParseFS(page, "page/index.html")
	if err != nil {
		return nil, err
	}
	files, err := fs.Sub(page, "page")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		// Whole or not at all.
		var text bytes.Buffer
		if err := html.Execute(&text, s.asked(r.Context())); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = text.WriteTo(w) // who asked has gone
	})
	mux.HandleFunc("/events", s.events)
	mux.Handle("/static/", http.StripPrefix("/static/", withoutListings(http.FileServerFS(files))))
	return s.guard(mux), nil
}

// withoutListings has folders not found, nor the template as it is.
func withoutListings(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "" || strings.HasSuffix(r.URL.Path, "/") || strings.HasSuffix(r.URL.Path, ".html") {
			http.NotFound(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// guard answers only who asks for this page by its own address, and only to be read.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		switch {
		case !s.isMeant(r):
			// A page of somebody else's, whose name was made to lead here (DNS rebinding), names itself.
			http.Error(w, "this page is asked for by its address or as localhost, and by no other name", http.StatusMisdirectedRequest)
		case r.Method != http.MethodGet:
			h.Set("Allow", http.MethodGet)
			http.Error(w, "there is nothing to change here", http.StatusMethodNotAllowed)
		case isForeign(r):
			http.Error(w, "asked for by the page of somebody else", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// isMeant reports whether a request names the host that it came to: by its address, by the name that was given for it, or, on this host, as localhost.
// The port does not count, so that it may be forwarded (ssh -L).
func (s *Server) isMeant(r *http.Request) bool {
	name := r.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	at, ok := localAddr(r)
	if addr, err := netip.ParseAddr(name); err == nil {
		addr = addr.Unmap().WithZone("")
		return ok && (addr == at || addr.IsLoopback() && at.IsLoopback())
	}
	return name != "" && strings.EqualFold(name, s.config.Host) || ok && at.IsLoopback() && strings.EqualFold(name, "localhost")
}

// localAddr is the address of this host that a request came to.
func localAddr(r *http.Request) (netip.Addr, bool) {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return netip.Addr{}, false
	}
	at, err := netip.ParseAddrPort(local.String())
	return at.Addr().Unmap().WithZone(""), err == nil
}

// isForeign reports whether a browser says that the page of another site asks, other than by a link to follow (Fetch Metadata).
func isForeign(r *http.Request) bool {
	site, mode := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Sec-Fetch-Mode")
	return (site == "cross-site" || site == "same-site") && mode != "navigate"
}
