package flannel

import (
	"encoding/json"
	"fmt"
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
		members.take(name)
	}
	return unknownMembers(members, known)
}

// mostRemarks bounds how many unknown members are named. All are counted.
const mostRemarks = 20

func unknownMembers(members object, known []string) []string {
	var names, remarks []string
	count := map[string]int{} // long names are told by how they begin
	for _, m := range members {
		name := shorten(m.name)
		if count[name]++; count[name] == 1 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	unnamed := len(members)
	for _, name := range names[:min(len(names), mostRemarks)] {
		remark := fmt.Sprintf("field %q is unknown and ignored", name)
		if n := count[name]; n > 1 {
			remark += fmt.Sprintf(" (%d such fields)", n)
		}
		if near := nearest(name, known); near != "" {
			remark += fmt.Sprintf(": did you mean %s?", near)
		}
		remarks, unnamed = append(remarks, remark), unnamed-count[name]
	}
	if unnamed > 0 {
		remarks = append(remarks, fmt.Sprintf("%d more fields are unknown and ignored", unnamed))
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
