package subnettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tulle/subnet"
)

// askTests run where the store is a subnet.Asker, too.
func askTests() map[string]func(*testing.T, Harness) {
	return map[string]func(*testing.T, Harness){
		"AskIsAnswered":        askIsAnswered,
		"AskOneAtATime":        askOneAtATime,
		"AskWhatIsRefused":     askWhatIsRefused,
		"AskANeighbouringName": askANeighbouringName,
	}
}

// askKeyTests are about what lies in the keys of questions.
func askKeyTests() map[string]func(*testing.T, KeyHarness) {
	return map[string]func(*testing.T, KeyHarness){
		"AskNobody":           askNobody,
		"AskAmidRubbish":      askAmidRubbish,
		"AskAfterAFlood":      askAfterAFlood,
		"AskWhatChangedSince": askWhatChangedSince,
	}
}

// respondent is host n, which answers with answer.
func respondent(n int, answer subnet.Answer) subnet.Claim {
	claim := claimOf(n)
	claim.Answer = answer
	return claim
}

// echo answers with the question and some more.
func echo(_ context.Context, question []byte) []byte { return append([]byte("you ask "), question...) }

// ask asks a node as another host does.
func ask(t *testing.T, h opener, node, question string) (string, error) {
	t.Helper()
	x := &host{t: t, store: h.Open()}
	t.Cleanup(x.kill)
	asker, ok := x.store.(subnet.Asker)
	if !ok {
		t.Fatalf("%T asks no hosts", x.store)
	}
	answer, err := asker.Ask(t.Context(), node, []byte(question))
	return string(answer), err
}

func wantAnswer(t *testing.T, h opener, node, question, want string) {
	t.Helper()
	if got, err := ask(t, h, node, question); err != nil || got != want {
		t.Errorf("the answer of %s to %.20q is %.60q, %v, want %.60q", node, question, got, err, want)
	}
}

func askIsAnswered(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, respondent(1, echo))
	start(t, h, respondent(2, func(context.Context, []byte) []byte { return bytes.Repeat([]byte("y"), subnet.MaxAnswer) }))
	wantAnswer(t, h, "node-1", "how are you?", "you ask how are you?")
	wantAnswer(t, h, "node-1", strings.Repeat("\xff", subnet.MaxQuestion), "you ask "+strings.Repeat("\xff", subnet.MaxQuestion))
	wantAnswer(t, h, "node-2", "and you?", strings.Repeat("y", subnet.MaxAnswer))
	wantKept(t, x)
}

// askNobody tells a host that lives and does not answer from one that is gone, and from one that there never was. Nothing is left of a question.
func askNobody(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	hosts := []*host{
		start(t, h, claimOf(1)),
		start(t, h, respondent(2, func(context.Context, []byte) []byte { return nil })),
		start(t, h, respondent(3, func(context.Context, []byte) []byte { return make([]byte, subnet.MaxAnswer+1) })),
		start(t, h, respondent(4, echo)),
		start(t, h, respondent(5, echo)),
	}
	hosts[3].kill()
	before := len(h.Keys())
	var wg sync.WaitGroup
	for node, want := range map[string]error{
		"node-1": subnet.ErrUnanswered, "node-2": subnet.ErrUnanswered, "node-3": subnet.ErrUnanswered, "node-4": subnet.ErrSilent, "node-9": subnet.ErrSilent,
	} {
		wg.Go(func() {
			if got, err := ask(t, h, node, "how are you?"); !errors.Is(err, want) {
				t.Errorf("the answer of %s is %.60q, %v, want %v", node, got, err, want)
			}
		})
	}
	wg.Wait()
	wantAnswer(t, h, "node-5", "how are you?", "you ask how are you?")
	if after := h.Keys(); len(after) != before {
		t.Errorf("after the questions there are the keys %q, want %d of them", after, before)
	}
	for _, x := range hosts {
		if claimants := x.held.Claimants(); len(claimants) > 0 {
			t.Errorf("who asked counts as claimant: %v", claimants)
		}
	}
}

func askOneAtATime(t *testing.T, h Harness) {
	h.Configure(network4())
	var busy, most atomic.Int32
	start(t, h, respondent(1, func(ctx context.Context, question []byte) []byte {
		defer busy.Add(-1)
		most.Store(max(most.Load(), busy.Add(1)))
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
		return question
	}))
	results := make(chan error)
	for n := range 3 {
		go func() {
			text := fmt.Sprint("question ", n)
			got, err := ask(t, h, "node-1", text)
			if err == nil && got != text {
				err = fmt.Errorf("%q is answered by %q", text, got)
			}
			results <- err
		}()
	}
	for range 3 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if most.Load() != 1 {
		t.Errorf("%d questions are answered at a time, want one", most.Load())
	}
}

func askWhatIsRefused(t *testing.T, h Harness) {
	for node, question := range map[string]string{
		"node-1":                     "",
		"node-2":                     strings.Repeat("x", subnet.MaxQuestion+1),
		"":                           "how are you?",
		"node\x1b[31m":               "how are you?",
		strings.Repeat("long", 1000): "how are you?",
	} {
		if _, err := ask(t, h, node, question); err == nil || errors.Is(err, subnet.ErrSilent) {
			t.Errorf("node %.20q is asked %d bytes: %v, want a refusal", node, len(question), err)
		}
	}
}

// askANeighbouringName asks hosts whose names begin like each other's.
func askANeighbouringName(t *testing.T, h Harness) {
	h.Configure(network4())
	names := []string{"node", "node-1", "node.1", "node0", "node_1", "nodes"}
	for n, name := range names {
		claim := respondent(n+1, func(context.Context, []byte) []byte { return []byte(name) })
		claim.Attrs.Node = name
		start(t, h, claim)
	}
	for _, name := range names {
		wantAnswer(t, h, name, "who are you?", name)
	}
}

const askKey = "claims/nodes/node-1/ask/"

// askAmidRubbish has a host take what others put in the place of questions for none, and leave it as it is.
func askAmidRubbish(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	var answered atomic.Int32
	x := start(t, h, respondent(1, func(ctx context.Context, question []byte) []byte {
		answered.Add(1)
		return echo(ctx, question)
	}))
	wantAnswer(t, h, "node-1", "do you listen?", "you ask do you listen?")
	rubbish := map[string]string{
		"a": "{", "b": `{"Question":""}`, "c": `{"Question":"YQ==","Answer":"Yg=="}`, "d": `{"Question":"` + strings.Repeat("YWFh", subnet.MaxQuestion) + `"}`,
		"e": strings.Repeat("x", 1<<20), "f/g": "",
	}
	for name, value := range rubbish {
		h.Put(askKey+name, value, time.Minute)
	}
	h.Put(askKey+"lasting", `{"Question":"YQ=="}`, 0) // which its answer would be, too
	h.Put("claims/nodes/node-1-x/ask/a", `{"Question":"YQ=="}`, time.Minute)
	wantAnswer(t, h, "node-1", "how are you?", "you ask how are you?")
	for name, value := range rubbish {
		if got, expires, ok := h.Get(askKey + name); got != value || !expires || !ok {
			t.Errorf("%s is now %.60q, it expires: %t, want it left as it was", name, got, expires)
		}
	}
	if n := answered.Load(); n != 2 {
		t.Errorf("%d answers, want two", n)
	}
	wantKept(t, x)
}

// askAfterAFlood asks a host that others drown in questions.
func askAfterAFlood(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	var answered atomic.Int32
	x := start(t, h, respondent(1, func(ctx context.Context, question []byte) []byte {
		answered.Add(1)
		return echo(ctx, question)
	}))
	wantAnswer(t, h, "node-1", "do you listen?", "you ask do you listen?")
	began := time.Now()
	const flood = 200
	for n := range flood {
		h.Put(fmt.Sprint(askKey, n), `{"Question":"`+strings.Repeat("YWFh", 300)+`"}`, time.Minute)
	}
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err = ask(t, h, "node-1", "how are you?"); err == nil {
			break
		}
	}
	if err != nil {
		t.Errorf("after a flood: %v", err)
	}
	if n, most := answered.Load(), subnet.QuestionBurst+int32(time.Since(began)/subnet.QuestionEvery)+1; n > most {
		t.Errorf("%d of %d questions are answered, want at most %d", n, flood, most)
	}
	wantKept(t, x)
	// The host is asked whether it lives by the same watch.
	twin := claimOf(2)
	twin.Attrs.Node = "node-1"
	var conflict *subnet.ConflictError
	if _, err := tryStart(t, h, twin); !errors.As(err, &conflict) {
		t.Errorf("a twin gets %v, want a conflict", err)
	}
}

// askWhatChangedSince changes a question while it is being answered: the answer is to another.
func askWhatChangedSince(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	asked, goOn := make(chan string, subnet.QuestionBurst), make(chan struct{}, subnet.QuestionBurst)
	start(t, h, respondent(1, func(ctx context.Context, question []byte) []byte {
		if string(question) == "do you listen?" {
			return question
		}
		asked <- string(question)
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		return question
	}))
	wantAnswer(t, h, "node-1", "do you listen?", "do you listen?")
	next := func(want string) {
		t.Helper()
		select {
		case got := <-asked:
			if got != want {
				t.Fatalf("asked %q, want %q", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("never asked %q", want)
		}
	}
	first, second := `{"Question":"YQ=="}`, `{"Question":"Yg=="}`
	h.Put(askKey+"one", first, time.Minute)
	next("a")
	h.Put(askKey+"one", second, time.Minute)
	goOn <- struct{}{}
	next("b")
	if got, _, _ := h.Get(askKey + "one"); got != second {
		t.Errorf("the key is %q, want the second question without an answer", got)
	}
	goOn <- struct{}{}
	want := `{"Question":"Yg==","Answer":"Yg=="}`
	for deadline := time.Now().Add(patience); ; <-time.After(10 * time.Millisecond) {
		got, expires, ok := h.Get(askKey + "one")
		if got == want && expires && ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the key is %q, it expires: %t, want %q that does", got, expires, want)
		}
	}
}
