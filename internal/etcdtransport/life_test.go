package etcdtransport

import (
	"log/slog"
	"testing"
	"time"
)

// Who asks for a sign of life does not wait for an etcd that is away.
func TestAskForLifeDoesNotWaitForEtcd(t *testing.T) {
	c, err := Open(Config{Endpoints: []string{"http://127.0.0.1:1"}, Logger: slog.New(slog.DiscardHandler), RequestTimeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	asked := make(chan bool, 1)
	stream := c.JoinStream(t.Context())
	go func() { asked <- stream.AskForLife() }()
	select {
	case could := <-asked:
		if could {
			t.Error("a sign of life could be asked for where there is no etcd")
		}
	case <-time.After(10 * time.Second):
		t.Error("AskForLife waits for etcd")
	}
}
