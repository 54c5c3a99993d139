package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/etcdtransport"
	"tulle/subnet"
)

// challengeTTL is how long a question stays if the asker dies.
const challengeTTL = time.Minute

// dialogue is the value of a challenge key: a question, and the answer if the owner lives.
type dialogue struct {
	Question instance
	Answer   *instance `json:",omitempty"`
}

// instance is one run of a node: the sender of a question or an answer.
type instance struct {
	Node     string
	Instance string `json:",omitempty"`
	Address  string `json:",omitempty"`
	Subnets  string `json:",omitempty"` // as a lease key has them
}

func instanceOf(a subnet.Attrs) instance {
	p := instance{Node: a.Node, Instance: a.Instance}
	if address := a.Address(); address.IsValid() {
		p.Address = address.String()
	}
	return p
}

// askAtOnce is how many owners are asked at the same time: many dead ones must not make a start take many times as long.
const askAtOnce = 32

// askAll notes which of the owners of some node ids live.
func (s *Store) askAll(ctx context.Context, claim subnet.Claim, nodes []string, alive map[string]bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var wg sync.WaitGroup
	turns := make(chan struct{}, askAtOnce)
	for _, node := range nodes {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			lives, err := s.ask(ctx, claim, node)
			if err != nil {
				cancel(err)
			}
			mu.Lock()
			defer mu.Unlock()
			alive[node] = lives
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// ask reports whether the owner of a node id lives. It does if its Held answers in time.
func (s *Store) ask(ctx context.Context, claim subnet.Claim, node string) (bool, error) {
	value, err := dialogue{Question: instanceOf(claim.Attrs)}.encode()
	if err != nil {
		return false, err
	}
	return s.asksLiveness(ctx, node, value)
}

func (d dialogue) encode() (string, error) {
	value, err := json.Marshal(d)
	if err != nil {
		return "", fmt.Errorf("encode challenge: %w", err)
	}
	return string(value), nil
}

func (s *Store) asksLiveness(ctx context.Context, node, question string) (bool, error) {
	for {
		alive, conclusive, err := s.askOnce(ctx, s.layout.challenge(node), question)
		if err != nil {
			return false, fmt.Errorf("ask node %s whether it lives: %w", node, err)
		}
		if conclusive {
			return alive, nil
		}
	}
}

// askOnce is not conclusive if the question is gone: another host has asked meanwhile, and took its own question
// away, which had replaced this one. An answer to it may have gone unseen.
func (s *Store) askOnce(ctx context.Context, key, question string) (alive, conclusive bool, err error) {
	id, _, err := s.grant(ctx, challengeTTL)
	if err != nil {
		return false, false, err
	}
	defer s.client.Revoke(ctx, id)
	r, err := s.client.Commit(ctx, etcdtransport.Txn{Then: []clientv3.Op{clientv3.OpPut(key, question, clientv3.WithLease(id))}})
	if err != nil {
		return false, false, err
	}
	if s.awaitAnswer(ctx, key, r.Header.Revision) {
		return true, true, nil
	}
	// Silence counts only if etcd was there to carry an answer.
	answer, err := s.client.Get(ctx, key)
	if err != nil || len(answer.Kvs) == 0 {
		return false, false, err
	}
	return answered(answer.Kvs[0]), true, nil
}

// awaitAnswer returns early on an answer.
func (s *Store) awaitAnswer(ctx context.Context, key string, revision int64) bool {
	ctx, cancel := context.WithTimeout(ctx, s.config.AnswerTimeout)
	defer cancel()
	for r := range s.client.WatchAlone(ctx, key, clientv3.WithRev(revision+1)) {
		for _, e := range r.Events {
			if e.Type == clientv3.EventTypePut && answered(e.Kv) {
				return true
			}
		}
	}
	<-ctx.Done() // a broken watch must not shorten the owner's time
	return false
}

func answered(kv *mvccpb.KeyValue) bool {
	var d dialogue
	return json.Unmarshal(kv.Value, &d) == nil && d.Answer != nil
}

// answer tells the asker that the owner lives. The answer goes away with the question.
func (h *held) answer(ctx context.Context, kv *mvccpb.KeyValue) error {
	var d dialogue
	if json.Unmarshal(kv.Value, &d) != nil || d.Answer != nil {
		return nil
	}
	mine := h.Lease()
	who := instanceOf(mine.Attrs)
	who.Subnets = subnet.KeyOf(mine.Subnets)
	if d.Question.Node == who.Node && d.Question.Instance == who.Instance {
		return nil
	}
	address, _ := netip.ParseAddr(d.Question.Address) // else it names none
	h.mu.Lock()
	h.claimants.Asked(subnet.Claimant{Node: d.Question.Node, Address: address})
	h.mu.Unlock()
	d.Answer = &who
	value, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	key := string(kv.Key)
	_, err = h.store.client.Commit(ctx, etcdtransport.Txn{
		When: []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision)},
		Then: []clientv3.Op{clientv3.OpPut(key, string(value), clientv3.WithIgnoreLease())},
	})
	if err != nil {
		return fmt.Errorf("answer node %s: %w", d.Question.Node, err)
	}
	return nil
}
