package subnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// UnknownFields returns a remark for each member of a JSON object that is none of the known names, with the nearest
// one if there is a similar one. Backends check their options with it; Type is then among the known names.
// The result is empty if object is not a JSON object.
func UnknownFields(object json.RawMessage, known ...string) []string {
	members, err := readObject(object)
	if err != nil {
		return nil
	}
	for _, name := range known {
		takeMember(members, name)
	}
	return unknownMembers(members, known)
}

// readObject splits a JSON object into its members. Of members with the same name the last one counts.
func readObject(data []byte) (map[string]json.RawMessage, error) {
	var members map[string]json.RawMessage
	err := json.Unmarshal(data, &members)
	if wrongType := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrongType) {
		return nil, fmt.Errorf("want a JSON object, got %s", wrongType.Value)
	}
	if err != nil {
		return nil, fmt.Errorf("want a JSON object: %w", err)
	}
	if members == nil {
		return nil, errors.New("want a JSON object, got null")
	}
	return members, nil
}

// takeMember removes the member called name, in whatever case, as encoding/json matches the fields of a struct.
// It returns nil if there is none. Among spellings the exact one counts, else the first in byte order.
func takeMember(members map[string]json.RawMessage, name string) json.RawMessage {
	var found string
	var value json.RawMessage
	for spelling, v := range members {
		if !strings.EqualFold(spelling, name) {
			continue
		}
		if value == nil || spelling == name || (found != name && spelling < found) {
			found, value = spelling, v
		}
		delete(members, spelling)
	}
	return value
}

func unknownMembers(members map[string]json.RawMessage, known []string) []string {
	var remarks []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		remark := fmt.Sprintf("field %q is unknown and ignored", shorten([]byte(name)))
		if near := nearest(name, known); near != "" {
			remark += fmt.Sprintf(": did you mean %s?", near)
		}
		remarks = append(remarks, remark)
	}
	return remarks
}

// nearest returns the known name with the smallest edit distance to name, "" if none resembles it.
func nearest(name string, known []string) string {
	best, bestDistance := "", len(name)/2+1
	for _, k := range known {
		if len(name)-len(k) >= bestDistance { // a distance is at least that; names may be long
			continue
		}
		if d := editDistance(strings.ToLower(name), strings.ToLower(k)); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// editDistance counts the bytes to insert, delete or replace to turn a into b (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
