package subnet_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tulle/subnet"
)

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns subnet.Turns
		take := func(n int) (got int) {
			for range n {
				if turns.Take() {
					got++
				}
			}
			return got
		}
		if got := take(100); got != subnet.QuestionBurst {
			t.Errorf("%d answers at once, want %d", got, subnet.QuestionBurst)
		}
		const while = 3 * subnet.QuestionEvery
		<-time.After(while)
		if got := take(100); got != 3 {
			t.Errorf("%d answers %v later, want 3", got, while)
		}
		answers := 0
		for range 1000 { // a flood
			<-time.After(10 * time.Millisecond)
			answers += take(10)
		}
		if want := int(10 * time.Second / subnet.QuestionEvery); answers < want-1 || answers > want+1 {
			t.Errorf("%d answers in ten seconds of a flood, want %d", answers, want)
		}
		<-time.After(time.Hour)
		if got := take(100); got != subnet.QuestionBurst {
			t.Errorf("%d answers at once after an hour, want %d", got, subnet.QuestionBurst)
		}
	})
}

func TestParseInquiry(t *testing.T) {
	for value, ok := range map[string]bool{
		`{"Question":"YQ=="}`:                 true,
		`{"Question":"YQ==","Answer":"Yg=="}`: true,
		`{"Question":"YQ==","Else":1}`:        true,
		``:                                    false,
		`{`:                                   false,
		`{}`:                                  false,
		`{"Question":""}`:                     false,
		`{"Question":7}`:                      false,
		`{"Question":"no base64!"}`:           false,
		`{"Answer":"Yg=="}`:                   false,
		`{"Question":"` + strings.Repeat("YWFh", subnet.MaxQuestion/3+1) + `"}`:               false,
		`{"Question":"YQ==","Answer":"` + strings.Repeat("YWFh", subnet.MaxAnswer/3+1) + `"}`: false,
		`{"Question":"YQ==","Else":"` + strings.Repeat("x", 2*subnet.MaxAnswer+3<<10) + `"}`:  false,
	} {
		if _, err := subnet.ParseInquiry([]byte(value)); (err == nil) != ok {
			t.Errorf("%.60s: %v, want it taken: %t", value, err, ok)
		}
	}
	largest := subnet.Inquiry{Question: bytes.Repeat([]byte{255}, subnet.MaxQuestion), Answer: bytes.Repeat([]byte{255}, subnet.MaxAnswer)}
	value, err := largest.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := subnet.ParseInquiry([]byte(value))
	if err != nil || !bytes.Equal(again.Answer, largest.Answer) || !bytes.Equal(again.Question, largest.Question) {
		t.Errorf("the largest inquiry is read back with %v", err)
	}
}
