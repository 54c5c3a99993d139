package api

import (
	"bufio"
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"tulle/internal/agent"
)

// Whatever is asked, the daemon answers, and shows the status to nobody but who asks the socket for it.
func FuzzRequest(f *testing.F) {
	for _, text := range []string{
		"GET /healthz HTTP/1.1\r\nHost: tulled\r\n\r\n", "GET /readyz HTTP/1.0\r\n\r\n", "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "GET //v1/../v1/status?x=%zz HTTP/1.1\r\nHost: x\r\n\r\n", "GET /v1/fast-path/flows HTTP/1.1\r\nHost: x\r\n\r\n", "POST /v1/fast-path/pause?for=5m HTTP/1.1\r\nHost: x\r\n\r\n", "GET /v1/peers HTTP/1.1\r\nHost: x\r\n\r\n", "POST /v1/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 24\r\n\r\n{\"peer\":\"h2\",\"count\":3}", "CONNECT x:1 HTTP/1.1\r\n\r\n",
	} {
		f.Add([]byte(text))
	}
	const secret = "only-for-the-socket"
	d := daemon{status: agent.Status{Ready: true, Node: secret}}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, full := range []bool{false, true} {
			req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
			if err != nil {
				return
			}
			mux := Health(d)
			if full {
				mux = Full(d, d, &path{}, nil)
			}
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, req)
			if w.Code < 200 || w.Code > 599 {
				t.Errorf("%q is answered with %d", text, w.Code)
			}
			if shown := bytes.Contains(w.Body.Bytes(), []byte(secret)); shown && (!full || req.Method != http.MethodGet && req.Method != http.MethodHead) {
				t.Errorf("%q shows the status (socket: %t)", text, full)
			}
		}
	})
}

// Whatever answers on the socket in the place of tulled, the client takes it or says what is wrong.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{`{"ready":true,"peers":[{"subnets":["10.5.1.0/24"]}]}`, `{"lease":{"subnets":["x"]}}`, `{"time":"no"}`, `[`, ``} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var st agent.Status
		if err := decodeStatus(text, &st); err == nil && st.Of("").Lease != nil {
			for _, p := range st.Of("").Lease.Subnets {
				_ = p.String() // as tulle status prints it
			}
		}
	})
}
