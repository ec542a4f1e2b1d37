package main

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"jackdaw/configs"
)

// words are all strings of at most so many letters of an alphabet.
func words(alphabet string, most int) []string {
	all := []string{""}
	for begin := 0; most > 0; most-- {
		end := len(all)
		for _, word := range all[begin:end] {
			for _, letter := range alphabet {
				all = append(all, word+string(letter))
			}
		}
		begin = end
	}
	return all
}

// A pattern meets a wildcard if there is a host that fits both: "*" is anything in the one, and one label in the other.
func TestMeets(t *testing.T) {
	for _, parent := range []string{"a", "b.a", "ab.b"} {
		var covered []string
		for _, label := range words("ab", 5)[1:] {
			covered = append(covered, label+"."+parent)
		}
		for _, pattern := range words("ab.*", 5) {
			want := slices.ContainsFunc(covered, func(host string) bool { return configs.Match(pattern, host) })
			if got := meets(pattern, "*."+parent); got != want {
				t.Errorf("%q and *.%s: %v, want %v", pattern, parent, got, want)
			}
		}
	}
}

// Every name is expected once, in the order of realms, routes and [acme], with all that speak of it.
func TestExpectations(t *testing.T) {
	got := expectations(&configs.Config{
		Users: configs.Users{Realms: map[string]string{"mail.{domain}": "{domain}", "b.example": "b.example"}},
		Routes: []configs.Route{
			{SNI: []string{"a.example", "*.a.example", "a.example"}, Line: 3},
			{Domain: []string{"c.example"}, Line: 5},
			{SNI: []string{"a.example", "b.example"}, Line: 7},
		},
		ACME: configs.ACME{Names: []string{"b.example", "mail.{domain}", "d.example"}},
	})
	want := []*expectation{
		{"b.example", []string{"realms", "line 7", "acme"}},
		{"mail.{domain}", []string{"realms", "acme"}},
		{"a.example", []string{"line 3", "line 7"}},
		{"*.a.example", []string{"line 3"}},
		{"d.example", []string{"acme"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(expectation{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
