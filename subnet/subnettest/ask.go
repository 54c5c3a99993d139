package subnettest

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"tulle/subnet"
)

var _ subnet.Asker = (*Store)(nil)

// How long an asker waits for an answer, and when it puts the question again.
const (
	answerPatience = 6 * time.Second
	askAgain       = 4 * time.Second
)

// questionsTo precedes the keys of questions to a node.
func questionsTo(node string) string { return "claims/nodes/" + node + "/ask/" }

// Ask implements subnet.Asker.
func (s *Store) Ask(ctx context.Context, node string, question []byte) ([]byte, error) {
	answer, err := s.ask(ctx, node, question)
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", node, err)
	}
	return answer, nil
}

func (s *Store) ask(ctx context.Context, node string, question []byte) ([]byte, error) {
	if err := subnet.CheckQuestion(node, question); err != nil {
		return nil, err
	}
	value, err := subnet.Inquiry{Question: question}.Encode()
	if err != nil {
		return nil, err
	}
	key := questionsTo(node) + rand.Text()
	defer s.Delete(key)
	end := time.NewTimer(answerPatience)
	defer end.Stop()
	for {
		if err := s.request(ctx); err != nil {
			return nil, err
		}
		s.Put(key, value, subnet.QuestionTime)
		again := time.NewTimer(askAgain)
		for asked := true; asked; {
			s.mu.Lock()
			var answer []byte
			if r, ok := s.keys[key]; ok {
				q, err := subnet.ParseInquiry([]byte(r.value))
				if err == nil {
					answer = q.Answer
				}
			}
			changed := s.anything
			s.mu.Unlock()
			if len(answer) > 0 {
				again.Stop()
				return answer, s.answer(ctx)
			}
			select {
			case <-changed:
			case <-again.C:
				asked = false
			case <-end.C:
				again.Stop()
				return nil, s.unanswered(ctx, node)
			case <-ctx.Done():
				again.Stop()
				return nil, context.Cause(ctx)
			}
		}
	}
}

// unanswered says why there is no answer. Silence counts only if the store was there to carry one.
func (s *Store) unanswered(ctx context.Context, node string) error {
	if err := s.request(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lives(node) {
		return subnet.ErrUnanswered
	}
	return subnet.ErrSilent
}

// question is one to the holder of a lease, as it was when it came.
type question struct {
	key      string
	revision subnet.Revision
	q        subnet.Inquiry
}

// hear takes in a key that has changed, if it is a question to this host. The store's lock is held.
func (h *held) hear(key string) {
	r, ok := h.store.keys[key]
	if !ok || r.expiry == nil || h.claim.Answer == nil || h.session.connection.NoEvents || !strings.HasPrefix(key, questionsTo(h.claim.Attrs.Node)) {
		return
	}
	q, err := subnet.ParseInquiry([]byte(r.value))
	if err != nil || q.Answer != nil || !h.turns.Take() {
		return
	}
	select {
	case h.due <- question{key, r.modified, q}:
	default:
	}
}

// hearAll takes in all questions that are there: news of them may have been lost.
func (h *held) hearAll() {
	for key := range h.store.keys {
		h.hear(key)
	}
}

// answerQuestions answers one after the other until ctx ends.
func (h *held) answerQuestions(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-h.due:
			if h.session.request(ctx) != nil {
				continue
			}
			q.q.Answer = h.claim.Answer(ctx, q.q.Question)
			if len(q.q.Answer) == 0 || len(q.q.Answer) > subnet.MaxAnswer || h.session.request(ctx) != nil {
				continue
			}
			h.writeAnswer(q)
		}
	}
}

// writeAnswer writes the answer into the question's own key, unless that has changed or gone meanwhile.
func (h *held) writeAnswer(q question) {
	value, err := q.q.Encode()
	if err != nil {
		return
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if r, ok := h.store.keys[q.key]; ok && r.modified == q.revision && r.expiry != nil {
		h.store.put(q.key, value, time.Until(r.expires))
	}
}
