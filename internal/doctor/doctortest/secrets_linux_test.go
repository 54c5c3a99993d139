package doctortest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/subnet"
)

// What a host answers has nothing of what it is told to keep, and not where that lies.
func TestAnswersHoldNoSecret(t *testing.T) {
	const user, password = "canary-user", "canary-password"
	l := labtest.New(t, lab.Config{Hosts: 1, Containers: 1, EtcdTLS: true, DaemonArgs: func(h *lab.Host) []string {
		file := filepath.Join(h.Dir, "canary-file")
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Error(err)
		}
		return []string{"--probe=on", "--etcd-username=" + user, "--etcd-password-file=" + file}
	}})
	if err := l.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	host := l.Hosts[0]
	settings := map[string]string{}
	for _, one := range host.Environment() {
		name, value, _ := strings.Cut(one, "=")
		settings[name] = value
	}
	question, err := subnet.Inquiry{Question: []byte(`{"facts":{}}`)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	key := l.Etcd.Key("claims/nodes/h1/ask/canary-key")
	if err := l.Etcd.PutLeased(t.Context(), key, question, subnet.QuestionTime); err != nil {
		t.Fatal(err)
	}
	var text []byte
	for deadline := time.Now().Add(healedWithin); text == nil; <-time.After(lookEvery) {
		found, err := l.Etcd.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if q, err := subnet.ParseInquiry([]byte(found[key])); err != nil || time.Now().After(deadline) {
			t.Fatalf("no answer: %q, %v", found, err)
		} else if len(q.Answer) > 0 {
			text = q.Answer
		}
	}
	var said struct{ Facts struct{ Node string } }
	if err := json.Unmarshal(text, &said); err != nil || said.Facts.Node != "h1" || len(text) > subnet.MaxAnswer {
		t.Fatalf("%d bytes, %v: %s", len(text), err, text)
	}
	for _, secret := range []string{user, password, "canary", settings["TULLED_ETCD_KEYFILE"], settings["TULLED_ETCD_CERTFILE"], settings["TULLED_ETCD_CAFILE"], "PRIVATE KEY", "PATH="} {
		if strings.Contains(string(text), secret) {
			t.Errorf("%q is in the answer: %s", secret, text)
		}
	}
}
