package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/etcdtransport"
	"tulle/subnet"
)

var _ subnet.Asker = (*Store)(nil)

// Ask implements subnet.Asker.
func (s *Store) Ask(ctx context.Context, node string, question []byte) ([]byte, error) {
	answer, err := s.put(ctx, node, question)
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", node, err)
	}
	return answer, nil
}

func (s *Store) put(ctx context.Context, node string, question []byte) ([]byte, error) {
	if err := subnet.CheckQuestion(node, question); err != nil {
		return nil, err
	}
	value, err := subnet.Inquiry{Question: question}.Encode()
	if err != nil {
		return nil, err
	}
	id, _, err := s.grant(ctx, subnet.QuestionTime)
	if err != nil {
		return nil, err
	}
	defer s.client.Revoke(ctx, id)
	key := s.layout.questions(node) + rand.Text()
	answer, err := s.putAt(ctx, key, value, id)
	if answer != nil || err != nil {
		return answer, err
	}
	// One without a node id is nobody's who claims anything.
	challenge, err := dialogue{}.encode()
	if err != nil {
		return nil, err
	}
	lives, err := s.asksLiveness(ctx, node, challenge)
	if err != nil {
		return nil, err
	}
	if lives {
		return nil, subnet.ErrUnanswered
	}
	return nil, subnet.ErrSilent
}

// putAt puts the question, and waits for the answer. Silence counts only if etcd was there to carry one.
func (s *Store) putAt(ctx context.Context, key, value string, id clientv3.LeaseID) ([]byte, error) {
	write := func() (int64, error) {
		r, err := s.client.Commit(ctx, etcdtransport.Txn{Then: []clientv3.Op{clientv3.OpPut(key, value, clientv3.WithLease(id))}})
		if err != nil {
			return 0, err
		}
		return r.Header.Revision, nil
	}
	revision, err := write()
	if err != nil {
		return nil, err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watch := s.client.WatchAlone(watching, key, clientv3.WithRev(revision+1))
	// The watch of the asked host may have broken in the moment of the first question.
	again, end := time.NewTimer(s.config.QuestionWait*2/3), time.NewTimer(s.config.QuestionWait)
	defer again.Stop()
	defer end.Stop()
	for {
		select {
		case r, ok := <-watch:
			if !ok {
				watch = nil // a broken watch must not shorten the other's time
				continue
			}
			for _, e := range r.Events {
				if e.Type == clientv3.EventTypePut {
					if answer := answerIn(e.Kv); answer != nil {
						return answer, nil
					}
				}
			}
		case <-again.C:
			if _, err := write(); err != nil {
				return nil, err
			}
		case <-end.C:
			r, err := s.client.Get(ctx, key)
			if err != nil || len(r.Kvs) == 0 {
				return nil, err
			}
			return answerIn(r.Kvs[0]), nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// answerIn is nil if there is none.
func answerIn(kv *mvccpb.KeyValue) []byte {
	q, err := subnet.ParseInquiry(kv.Value)
	if err != nil || len(q.Answer) == 0 {
		return nil
	}
	return q.Answer
}

// questions are those to the holder of a lease. What is not its turn is passed over, so that a flood of them costs that they are read.
type questions struct {
	below string // precedes their keys
	turns subnet.Turns
	due   chan question
}

type question struct {
	kv  *mvccpb.KeyValue
	q   subnet.Inquiry
	was time.Time // when it came
}

func (s *Store) newQuestions(claim subnet.Claim) *questions {
	return &questions{below: s.layout.questions(claim.Attrs.Node), due: make(chan question, subnet.QuestionBurst)}
}

// take takes in the questions of what a watch tells of the range in which the host is asked, and returns what it tells of the challenge. It does not wait.
func (qs *questions) take(challenge string, events []*clientv3.Event) (rest []*clientv3.Event) {
	for _, e := range events {
		key := string(e.Kv.Key)
		if key == challenge {
			rest = append(rest, e)
			continue
		}
		// What hangs on no etcd lease is no question: the answer would stay.
		if e.Type != clientv3.EventTypePut || e.Kv.Lease == 0 || !strings.HasPrefix(key, qs.below) {
			continue
		}
		q, err := subnet.ParseInquiry(e.Kv.Value)
		if err != nil || q.Answer != nil || !qs.turns.Take() {
			continue
		}
		select {
		case qs.due <- question{e.Kv, q, time.Now()}:
		default:
		}
	}
	return rest
}

// answerQuestions answers one after the other until ctx ends.
func (h *held) answerQuestions(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-h.questions.due:
			if time.Since(q.was) >= subnet.QuestionTime {
				continue
			}
			if err := h.answerQuestion(ctx, q); err != nil && ctx.Err() == nil {
				h.store.log.Debug("question left unanswered", "err", err)
			}
		}
	}
}

var errTooLong = errors.New("the answer is too long")

// answerQuestion writes the answer into the question's own key, unless that has changed or gone meanwhile.
func (h *held) answerQuestion(ctx context.Context, q question) error {
	q.q.Answer = h.claim.Answer(ctx, q.q.Question)
	if len(q.q.Answer) == 0 {
		return nil
	}
	if len(q.q.Answer) > subnet.MaxAnswer {
		return fmt.Errorf("%w: %d bytes", errTooLong, len(q.q.Answer))
	}
	value, err := q.q.Encode()
	if err != nil {
		return err
	}
	key := string(q.kv.Key)
	_, err = h.store.client.Commit(ctx, etcdtransport.Txn{
		When: []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", q.kv.ModRevision)},
		Then: []clientv3.Op{clientv3.OpPut(key, value, clientv3.WithIgnoreLease())},
	})
	return err
}
