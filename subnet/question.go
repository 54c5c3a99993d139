package subnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// What questions to a host are bounded by: whoever may write to the store may ask.
const (
	MaxQuestion   = 1 << 10     // bytes of a question
	MaxAnswer     = 128 << 10   // bytes of an answer; etcd takes requests of 1.5 MiB (--max-request-bytes)
	QuestionTime  = time.Minute // how long a question waits at most; then it goes, and its answer with it
	QuestionBurst = 5           // questions that a host answers at once
	QuestionEvery = time.Second // for more than these, how often it answers one
)

// Answer returns what a host answers to a question, at most MaxAnswer bytes; nothing leaves the question unanswered. It is called by one goroutine at a
// time. Who asks is not known: what it tells is for everybody who may read the store.
type Answer func(ctx context.Context, question []byte) []byte

// Asker puts questions to hosts through the store, which goes as well where two hosts do not reach each other.
type Asker interface {
	// Ask puts a question of at most MaxQuestion bytes to the host with a node id, and returns its answer. The error wraps ErrSilent or ErrUnanswered if
	// none comes within a few seconds.
	Ask(ctx context.Context, node string, question []byte) ([]byte, error)
}

// ErrSilent tells that nobody answers for a node: its tulled does not run, holds no lease, or does not reach the store.
var ErrSilent = errors.New("its tulled is silent")

// ErrUnanswered tells that the tulled of a node holds its lease, and leaves the question unanswered.
var ErrUnanswered = errors.New("its tulled leaves the question unanswered")

// CheckQuestion refuses what cannot be asked.
func CheckQuestion(node string, question []byte) error {
	if err := CheckNodeID(node); err != nil {
		return err
	}
	if len(question) == 0 || len(question) > MaxQuestion {
		return fmt.Errorf("the question has %d bytes: want 1 to %d", len(question), MaxQuestion)
	}
	return nil
}

// Inquiry is a question in the store, and the answer to it.
type Inquiry struct {
	Question []byte
	Answer   []byte `json:",omitempty"` // nil: there is none yet
}

// ParseInquiry reads what is in the store.
func ParseInquiry(value []byte) (Inquiry, error) {
	var q Inquiry
	if len(value) > 2*(MaxQuestion+MaxAnswer) {
		return q, fmt.Errorf("an inquiry of %d bytes: want at most %d", len(value), 2*(MaxQuestion+MaxAnswer))
	}
	if err := json.Unmarshal(value, &q); err != nil {
		return q, fmt.Errorf("an inquiry that does not parse: %w", err)
	}
	if len(q.Question) == 0 || len(q.Question) > MaxQuestion || len(q.Answer) > MaxAnswer {
		return q, fmt.Errorf("an inquiry with a question of %d bytes and an answer of %d: want 1 to %d, and at most %d", len(q.Question), len(q.Answer), MaxQuestion, MaxAnswer)
	}
	return q, nil
}

// Encode returns what is to be in the store.
func (q Inquiry) Encode() (string, error) {
	value, err := json.Marshal(q)
	if err != nil {
		return "", fmt.Errorf("encode inquiry: %w", err)
	}
	return string(value), nil
}

// Turns tells which questions get an answer. The zero Turns has a whole burst.
type Turns struct {
	spent float64 // of the burst, at the time of
	last  time.Time
}

// Take reports whether there is an answer for one more.
func (t *Turns) Take() bool {
	now := time.Now()
	t.spent = max(0, t.spent-now.Sub(t.last).Seconds()/QuestionEvery.Seconds())
	t.last = now
	if t.spent > QuestionBurst-1 {
		return false
	}
	t.spent++
	return true
}
