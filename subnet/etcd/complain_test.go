//go:build linux

package etcd_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/etcdmember/etcdmembertest"
	"tulle/subnet"
	"tulle/subnet/etcd"
	"tulle/subnet/subnettest"
)

func lostPeer(node string) *subnet.Complaint {
	return &subnet.Complaint{Node: node, Lease: "10.5.1.0-24", Time: time.Now(), Peers: []subnet.BadPeer{{
		Lease: "10.5.9.0-24", Node: "h9", Family: "ipv4", Way: "fabric", State: subnet.PeerUnreachable, Since: time.Unix(1764547200, 0),
	}}}
}

// What makes no sense among complaints is told, some of it by name, and keeps none of the others from being read.
func TestComplaints(t *testing.T) {
	h := newHarness(t, etcd.Config{Endpoints: etcdmembertest.Start(t).Endpoints(), Prefix: "/net", PageSize: 7})
	s := h.open()
	defer s.Close()
	if list, unreadable, err := s.Complaints(t.Context()); len(list)+len(unreadable) > 0 || err != nil {
		t.Errorf("at first there are %+v, %+v, %v", list, unreadable, err)
	}
	const sound, broken = 40, 25
	for i := range sound {
		node := fmt.Sprintf("h%02d", i)
		value, err := lostPeer(node).Encode()
		if err != nil {
			t.Fatal(err)
		}
		h.Put(subnettest.ComplaintOf(node), value, time.Hour)
	}
	for i := range broken {
		h.Put(subnettest.ComplaintOf(fmt.Sprintf("odd%02d", i)), "{", time.Hour)
	}
	value, err := lostPeer("a").Encode()
	if err != nil {
		t.Fatal(err)
	}
	h.Put(subnettest.ComplaintOf("a"), value, 0)                                                  // for ever
	h.Put(subnettest.ComplaintOf("b"), value, time.Hour)                                          // of another
	h.Put(subnettest.ComplaintOf("c"), value+strings.Repeat(" ", subnet.MaxComplaint), time.Hour) // too long
	list, unreadable, err := s.Complaints(t.Context())
	if err != nil || len(list) != sound || list[0].Node != "h00" || list[sound-1].Node != "h39" || len(list[3].Peers) != 1 {
		t.Errorf("%d complaints, %v: %+v", len(list), err, list)
	}
	const named = 20
	if len(unreadable) != named+1 || unreadable[0].Key != "/net/claims/complaints/a" || !strings.Contains(unreadable[0].Reason, "no etcd lease") ||
		!strings.Contains(unreadable[1].Reason, `node "a" in the key of node "b"`) || !strings.Contains(unreadable[2].Reason, "bytes") ||
		unreadable[named].Reason != fmt.Sprintf("%d keys besides that make no sense", broken+3-named) {
		t.Errorf("unreadable are %+v", unreadable)
	}
}

// Only some of very many are read.
func TestMostComplaints(t *testing.T) {
	h := newHarness(t, etcd.Config{Endpoints: etcdmembertest.Start(t).Endpoints(), Prefix: "/net"})
	for first := 0; first < subnet.MostComplaints+100; first += 100 {
		var puts []clientv3.Op
		for i := range 100 {
			puts = append(puts, clientv3.OpPut(h.key(subnettest.ComplaintOf(fmt.Sprintf("n%06d", first+i))), "{}"))
		}
		if _, err := h.raw.Txn(h.ctx()).Then(puts...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	s := h.open()
	defer s.Close()
	list, unreadable, err := s.Complaints(t.Context())
	if err != nil || len(list) != 0 || len(unreadable) != 22 || unreadable[0].Reason != "there are 100 complaints besides: the first 10000 are read" {
		t.Errorf("%d complaints, %v, %+v", len(list), err, unreadable)
	}
}

// A host that has nothing to complain of asks etcd once, and one that says the same again not at all.
func TestRequestsOfComplaints(t *testing.T) {
	h := newHarness(t, etcd.Config{Endpoints: etcdmembertest.Start(t).Endpoints(), Prefix: "/net"})
	h.Put("config", `{"Network":"10.0.0.0/12"}`, 0)
	s := h.open()
	defer s.Close()
	held := h.acquire(s, claimOf(1))
	h.awaitRest()
	expect := func(what string, c *subnet.Complaint, ranges, txns float64) {
		t.Helper()
		before := h.requests()
		if err := held.Complain(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		now := h.requests()
		if r, x := now["Range"]-before["Range"], now["Txn"]-before["Txn"]; r != ranges || x != txns {
			t.Errorf("%s: %v reads and %v writes, want %v and %v", what, r, x, ranges, txns)
		}
	}
	expect("nothing at first", nil, 1, 0)
	expect("nothing", nil, 0, 0)
	expect("something", lostPeer(""), 0, 1)
	expect("the same", lostPeer(""), 0, 0)
	expect("nothing more", nil, 0, 1)
}

// An operator who releases a lease ends what its host complained of.
func TestReleaseEndsComplaint(t *testing.T) {
	h := newHarness(t, etcd.Config{Endpoints: etcdmembertest.Start(t).Endpoints(), Prefix: "/net"})
	h.Put("config", `{"Network":"10.0.0.0/12"}`, 0)
	s := h.open()
	held := h.acquire(s, claimOf(1))
	if err := held.Complain(t.Context(), lostPeer("")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	operator := h.open()
	defer operator.Close()
	if list, _, err := operator.Complaints(t.Context()); len(list) != 1 || err != nil {
		t.Fatalf("there are %+v, %v", list, err)
	}
	if err := operator.Release(t.Context(), held.Lease().Subnets); err != nil {
		t.Fatal(err)
	}
	if list, unreadable, err := operator.Complaints(t.Context()); len(list)+len(unreadable) > 0 || err != nil {
		t.Errorf("there are %+v, %+v, %v", list, unreadable, err)
	}
}
