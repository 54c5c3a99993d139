package far

import (
	"context"
	"encoding/json"
	"fmt"

	"tulle/internal/doctor"
	"tulle/internal/printable"
	"tulle/subnet"
)

// maxError is how much of an error of another host is shown.
const maxError = 300

// Ask has the facts of the host with a node id. They are what whoever may write to the store wants them to be.
func Ask(ctx context.Context, store subnet.Asker, node string, q doctor.Question) (doctor.Facts, error) {
	text, err := json.Marshal(question{Facts: &q})
	if err != nil {
		return doctor.Facts{}, fmt.Errorf("encode question: %w", err)
	}
	said, err := store.Ask(ctx, node, text)
	if err != nil {
		return doctor.Facts{}, err
	}
	var a answer
	if err := json.Unmarshal(said, &a); err != nil {
		return doctor.Facts{}, fmt.Errorf("ask node %s: its answer does not parse: %w", node, err)
	}
	if a.Facts == nil {
		return doctor.Facts{}, fmt.Errorf("ask node %s: it says: %s", node, printable.Text(a.Err, maxError))
	}
	var facts doctor.Facts
	if err := json.Unmarshal(a.Facts, &facts); err != nil {
		return facts, fmt.Errorf("ask node %s: its facts do not parse: %w", node, err)
	}
	facts.Bound()
	facts.Node = node // whatever it calls itself
	return facts, nil
}
