package configs

import "strings"

// Suggest completes an error about an unknown name with the nearest valid one, else with a choice that is short enough
// to read.
func Suggest(name string, valid []string) string {
	near, most := "", max(1, (len(name)+1)/3)
	for _, v := range valid {
		if d := distance(name, v); d <= most && d < max(len(name), len(v)) {
			near, most = v, d-1
		}
	}
	switch {
	case near != "":
		return `; did you mean "` + near + `"?`
	case len(valid) == 0 || len(valid) > 16:
		return ""
	}
	return "; valid: " + strings.Join(valid, ", ")
}

// distance counts the letters to insert, remove or replace that make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
