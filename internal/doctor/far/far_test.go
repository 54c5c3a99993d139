package far_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/doctor"
	"tulle/internal/doctor/far"
	"tulle/internal/trouble"
	"tulle/subnet"
	"tulle/subnet/subnettest"
)

// known asks one host, without a store between.
type known struct{ answer subnet.Answer }

func (k known) Ask(ctx context.Context, _ string, question []byte) ([]byte, error) {
	if len(question) > subnet.MaxQuestion {
		return nil, errors.New("too long")
	}
	answer := k.answer(ctx, question)
	if len(answer) == 0 || len(answer) > subnet.MaxAnswer {
		return nil, fmt.Errorf("an answer of %d bytes", len(answer))
	}
	return answer, nil
}

func TestFactsOfAnotherHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := subnettest.NewStore()
		defer store.Close()
		store.Put("config", `{"Network":"10.5.0.0/16"}`, 0)
		q := doctor.Question{Of: "web", Toward: netip.MustParseAddr("10.5.2.2")}
		facts := doctor.Facts{Node: "somebody-else", Version: "1", Links: []doctor.Link{{Name: "flannel.1", RxDropped: 1<<63 + 1}}, Settings: []doctor.Setting{}}
		claim := subnet.Claim{Attrs: subnet.Attrs{Node: "h1", BackendType: "vxlan"}, Answer: far.Answerer(func(_ context.Context, asked doctor.Question) doctor.Facts {
			if asked != q {
				t.Errorf("asked %+v, want %+v", asked, q)
			}
			return facts
		})}
		claim.Attrs.Public.V4 = netip.MustParseAddr("192.0.2.1")
		if _, err := store.Acquire(t.Context(), claim); err != nil {
			t.Fatal(err)
		}
		got, err := far.Ask(t.Context(), store, "h1", q)
		if facts.Node = "h1"; err != nil || !reflect.DeepEqual(got, facts) {
			t.Errorf("%+v, %v, want %+v", got, err, facts)
		}
		if _, err := far.Ask(t.Context(), store, "h2", q); !errors.Is(err, subnet.ErrSilent) {
			t.Errorf("a host that is not there: %v, want silence", err)
		}
	})
}

// Whatever a question is, the answer says what is wrong with it.
func TestQuestionsThatAreNone(t *testing.T) {
	answer := far.Answerer(func(context.Context, doctor.Question) doctor.Facts {
		t.Error("facts are gathered")
		return doctor.Facts{}
	})
	for _, question := range []string{"", "x", "{}", "[]", `{"facts":7}`, `{"facts":{"of":"x","more":1}}`, `{"else":{}}`, `{"facts":{"of":"` + strings.Repeat("x", 300) + `"}}`, `{"facts":{"toward":"x"}}`} {
		if text := string(answer(t.Context(), []byte(question))); !strings.HasPrefix(text, `{"error":"`) {
			t.Errorf("%.40s is answered by %.80s", question, text)
		}
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	for _, text := range []string{"x", "{}", "[]", `{"facts":[]}`, `{"error":"\u001b[31mred` + strings.Repeat("x", 1000) + `"}`} {
		_, err := far.Ask(t.Context(), known{func(context.Context, []byte) []byte { return []byte(text) }}, "h1", doctor.Question{})
		if err == nil || len(err.Error()) > 500 || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%.40s: %v", text, err)
		}
	}
}

// However much there is to tell, an answer fits, and says what it leaves out.
func TestAnswersFit(t *testing.T) {
	long := strings.Repeat("é", doctor.MaxText/2)
	var facts doctor.Facts
	for range doctor.MaxContainers {
		facts.Containers = append(facts.Containers, doctor.Container{Name: long, ID: long, Namespace: long})
	}
	facts.Status = &doctor.Status{}
	for range 8 {
		facts.Status.Troubles = append(facts.Status.Troubles, trouble.Trouble{Code: "a", Text: long, Subject: long, Remedy: long})
	}
	for range 8 {
		facts.Others = append(facts.Others, doctor.Other{Spec: long})
	}
	whole := len(facts.Status.Troubles)
	got, err := far.Ask(t.Context(), known{far.Answerer(func(context.Context, doctor.Question) doctor.Facts { return facts })}, "h1", doctor.Question{})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Containers) == 0 || len(got.Containers) == doctor.MaxContainers || len(got.Unread) == 0 || len(facts.Status.Troubles) != whole {
		t.Errorf("%d containers, %+v unread", len(got.Containers), got.Unread)
	}
}

// An answer may tell of more than a host has.
func TestAnswersAreBounded(t *testing.T) {
	text := `{"facts":{"containers":[` + strings.Repeat("{},", 5000) + `{}]}}`
	got, err := far.Ask(t.Context(), known{func(context.Context, []byte) []byte { return []byte(text) }}, "h1", doctor.Question{})
	if err != nil || len(got.Containers) != doctor.MaxContainers || len(got.Unread) != 1 {
		t.Errorf("%d containers, %+v unread, %v", len(got.Containers), got.Unread, err)
	}
}

func TestAnswersHide(t *testing.T) {
	const password, key = "hunter2 \"<&>é", "/etc/tulle/key.pem"
	facts := doctor.Facts{Unread: []doctor.Unread{{Part: doctor.PartStatus, Why: "no " + password + " in " + key}}, Status: &doctor.Status{Reason: key, Networks: []doctor.Network{{Name: password}}}}
	answer := far.Answerer(func(context.Context, doctor.Question) doctor.Facts { return facts }, password, key, "")
	got, err := far.Ask(t.Context(), known{answer}, "h1", doctor.Question{})
	if err != nil {
		t.Fatal(err)
	}
	if all := fmt.Sprintf("%+v %+v", got, *got.Status); strings.Contains(all, password) || strings.Contains(all, key) || !strings.Contains(all, "no (hidden) in (hidden)") {
		t.Errorf("told is %s", all)
	}
}

// A host whose facts are not had in time says that, and does not begin again while it still tries.
func TestAnswersInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gathered atomic.Int32
		goOn := make(chan struct{})
		host := known{far.Answerer(func(context.Context, doctor.Question) doctor.Facts {
			gathered.Add(1)
			<-goOn // it heeds no context
			return doctor.Facts{}
		})}
		for range 3 {
			began := time.Now()
			_, err := far.Ask(t.Context(), host, "h1", doctor.Question{})
			if took := time.Since(began); err == nil || took > 4*time.Second {
				t.Errorf("%v after %v", err, took)
			}
		}
		if n := gathered.Load(); n != 1 {
			t.Errorf("facts are gathered %d times at once", n)
		}
		close(goOn)
		synctest.Wait()
		if _, err := far.Ask(t.Context(), host, "h1", doctor.Question{}); err != nil {
			t.Errorf("once that is over: %v", err)
		}
	})
}
