package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	mostViewers = 32               // event streams at once
	keepAlive   = 15 * time.Second // between two words on a stream, at most: it ends where nobody reads any more
	writeTime   = 10 * time.Second // for a word to be taken
)

// viewer is a page that somebody looks at.
type viewer struct {
	changed chan struct{}
	last    sections // what it has
}

// join adds a viewer, unless there are too many.
func (s *Server) join() *viewer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.viewers) >= mostViewers {
		return nil
	}
	v := &viewer{changed: make(chan struct{}, 1), last: sections{}}
	s.viewers[v] = true
	signal(s.wake) // what is known may be old, if nobody looked
	signal(v.changed)
	return v
}

func (s *Server) leave(v *viewer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.viewers, v)
}

// events tells a page what changes, by server-sent events (HTML, section 9.2): each has the sections of the model that are new.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	v := s.join()
	if v == nil {
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("%d pages are open already: close some", mostViewers), http.StatusServiceUnavailable)
		return
	}
	defer s.leave(v)
	w.Header().Set("Content-Type", "text/event-stream")
	stream := http.NewResponseController(w)
	word := time.NewTicker(keepAlive)
	defer word.Stop()
	for {
		text := ": still here\n\n"
		select {
		case <-r.Context().Done():
			return
		case <-word.C:
		case <-v.changed:
			news, err := v.news(s.sections())
			if err != nil {
				return
			}
			text = "data: " + string(news) + "\n\n"
		}
		// A server without deadlines, such as one of tests, serves as well.
		_ = stream.SetWriteDeadline(time.Now().Add(writeTime))
		if _, err := w.Write([]byte(text)); err != nil {
			return
		}
		if err := stream.Flush(); err != nil {
			return
		}
	}
}

// news is what the viewer does not have yet, as JSON, which it has from then on.
func (v *viewer) news(current sections) ([]byte, error) {
	changed := sections{}
	for name, text := range current {
		if !sameText(v.last[name], text) {
			changed[name] = text
		}
	}
	v.last = current
	return json.Marshal(changed)
}
