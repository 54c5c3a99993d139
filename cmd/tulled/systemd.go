package main

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"tulle/internal/agent"
	"tulle/internal/printable"
)

// notifier tells systemd how things stand (sd_notify(3)). Without a socket it does nothing. Only one goroutine may use it
// at a time: the agent's loop, and main when that has ended.
type notifier struct {
	socket string
	log    *slog.Logger
	ready  bool
	last   string
}

// status sends READY the first time that forwarding is right, and a line for systemctl status when it changes.
func (n *notifier) status(st agent.Status) {
	line := st.Reason
	if st.Ready {
		var parts []string
		for _, network := range st.Networks {
			parts = append(parts, fmt.Sprintf("subnet %v, %d peers", network.Lease.Subnets, network.PeerCount))
		}
		line = strings.Join(parts, "; ")
		if st.Degraded != "" {
			line += "; degraded: " + st.Degraded
		}
	}
	if line == n.last && (n.ready || !st.Ready) {
		return
	}
	message := "STATUS=" + printable.Text(strings.ReplaceAll(line, "\n", "; "), printable.Line)
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

// sendTimeout keeps a systemd that does not read from stopping the loop.
const sendTimeout = time.Second

func (n *notifier) send(message string) {
	if n.socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		n.log.Debug("notify systemd", "err", err)
		return
	}
	defer conn.Close()
	err = conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	if err == nil {
		_, err = conn.Write([]byte(message))
	}
	if err != nil {
		n.log.Debug("notify systemd", "err", err)
	}
}
