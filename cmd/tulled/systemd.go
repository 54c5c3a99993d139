package main

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"

	"tulle/internal/agent"
)

// notifier tells systemd how things stand (sd_notify(3)). Without a socket it does nothing.
type notifier struct {
	socket string
	log    *slog.Logger

	mu    sync.Mutex
	ready bool
	last  string
}

// status sends READY the first time that forwarding is right, and a line for systemctl status when it changes.
func (n *notifier) status(st agent.Status) {
	line := st.Reason
	if st.Ready {
		line = fmt.Sprintf("subnet %v, %d peers", st.Lease.Subnets, len(st.Peers))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if line == n.last && (n.ready || !st.Ready) {
		return
	}
	message := "STATUS=" + strings.ReplaceAll(line, "\n", "; ")
	if st.Ready && !n.ready {
		n.ready = true
		message += "\nREADY=1"
	}
	n.last = line
	n.send(message)
}

// beat keeps the watchdog quiet. It is called by the loop itself, so that a stuck loop stops it.
func (n *notifier) beat() { n.send("WATCHDOG=1") }

func (n *notifier) stopping() { n.send("STOPPING=1") }

func (n *notifier) send(message string) {
	if n.socket == "" {
		return
	}
	name := n.socket
	if strings.HasPrefix(name, "@") {
		name = "\x00" + name[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		n.log.Debug("notify systemd", "err", err)
		return
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(message)); err != nil {
		n.log.Debug("notify systemd", "err", err)
	}
}
