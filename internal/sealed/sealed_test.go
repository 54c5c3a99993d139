package sealed

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

func TestSeal(t *testing.T) {
	for _, object := range []string{`{}`, `{"a":1}`} {
		sealed := Seal([]byte(object))
		var got map[string]any
		if err := errors.Join(Check(sealed), json.Unmarshal(sealed, &got)); err != nil {
			t.Errorf("%s: %v", sealed, err)
		}
		for i := range sealed {
			broken := bytes.Clone(sealed)
			broken[i] ^= 1
			if Check(broken) == nil {
				t.Errorf("%s: a changed byte goes unnoticed", broken)
			}
			if Check(sealed[:i]) == nil {
				t.Errorf("%s: the lack of the rest goes unnoticed", sealed[:i])
			}
		}
	}
	if err := Check([]byte(`{"a":1}`)); !errors.Is(err, ErrNone) {
		t.Errorf("%v, want that there is no checksum", err)
	}
}
