package far

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"tulle/internal/doctor"
	"tulle/subnet"
)

// patience is how long a host takes for an answer at most.
const patience = 3 * time.Second

// question is what a host is asked; one of its fields is set.
type question struct {
	Facts *doctor.Question `json:"facts,omitempty"`
}

// answer is what it says.
type answer struct {
	Facts json.RawMessage `json:"facts,omitempty"` // doctor.Facts
	Err   string          `json:"error,omitempty"`
}

// maxName bounds what a question calls a container, in bytes: the id of one has 64.
const maxName = 256

// Answerer answers with what gather says of this host. Nothing of what is hidden is in an answer: what is secret, or says where secrets lie.
func Answerer(gather func(context.Context, doctor.Question) doctor.Facts, hidden ...string) subnet.Answer {
	turn := make(chan struct{}, 1) // holds a token while facts are gathered, which may take longer than the answer waits
	return func(ctx context.Context, text []byte) []byte {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		q, err := decodeQuestion(text)
		if err != nil {
			return encode(answer{Err: err.Error()}, hidden)
		}
		select {
		case turn <- struct{}{}:
		default:
			return encode(answer{Err: "it is still busy with an earlier question"}, hidden)
		}
		done := make(chan []byte, 1)
		go func() {
			defer func() { <-turn }()
			done <- fit(gather(ctx, q), hidden)
		}()
		select {
		case encoded := <-done:
			return encoded
		case <-ctx.Done():
			return encode(answer{Err: "there was no time for it"}, hidden)
		}
	}
}

func decodeQuestion(text []byte) (doctor.Question, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields() // what is asked by a newer version and not known here must not be answered by half
	var q question
	switch err := d.Decode(&q); {
	case err != nil:
		return doctor.Question{}, fmt.Errorf("this host's tulled does not understand the question: %w", err)
	case q.Facts == nil:
		return doctor.Question{}, fmt.Errorf("this host's tulled does not understand the question: it is for nothing")
	case len(q.Facts.Of) > maxName:
		return doctor.Question{}, fmt.Errorf("the name of the container has %d bytes: want at most %d", len(q.Facts.Of), maxName)
	}
	return *q.Facts, nil
}

// room is what an answer has beside its facts, and what is hidden may take more than it took, in bytes.
const room = 4 << 10

// fit encodes facts, as many as there is room for.
func fit(f doctor.Facts, hidden []string) []byte {
	text, err := f.Within(subnet.MaxAnswer - room)
	if err != nil {
		return encode(answer{Err: err.Error()}, hidden)
	}
	return encode(answer{Facts: text}, hidden)
}

// encode returns nothing, and so no answer, if something of what is hidden cannot be taken out.
func encode(a answer, hidden []string) []byte {
	text, err := json.Marshal(a)
	if err != nil {
		return nil
	}
	var v any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return nil
	}
	var pairs []string
	for _, h := range hidden {
		if h != "" {
			pairs = append(pairs, h, "(hidden)")
		}
	}
	if len(pairs) > 0 {
		v = replaced(v, strings.NewReplacer(pairs...))
	}
	if text, err = json.Marshal(v); err != nil {
		return nil
	}
	return text
}

// replaced replaces in all texts of v.
func replaced(v any, r *strings.Replacer) any {
	switch v := v.(type) {
	case string:
		return r.Replace(v)
	case []any:
		for i := range v {
			v[i] = replaced(v[i], r)
		}
	case map[string]any:
		for k, of := range v {
			v[k] = replaced(of, r)
		}
	}
	return v
}
