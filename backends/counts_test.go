package backends

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"jackdaw/backends/directories"
	"jackdaw/configs"
)

// Answers are counted by what they say and by where they come from, and the time is counted with them.
func TestAnswersCounted(t *testing.T) {
	r := &Router{config: &configs.Config{}, doors: &doors{all: make(map[string]*door)}, directories: make(map[string]*openDirectory)}
	yesterday := time.Now().Add(-24 * time.Hour)
	for _, one := range []told{
		{answer: directories.Answer{Backend: "store1"}},
		{answer: directories.Answer{Backend: "store1", Kept: yesterday}},
		{answer: directories.Answer{Backend: "store1", Kept: yesterday, Down: yesterday}},
		{err: directories.ErrNotFound},
		{answer: directories.Answer{Kept: yesterday}, err: directories.ErrNotFound},
		{err: directories.ErrDenied},
		{err: errors.New("no route to host")},
		{err: errors.New("connection reset")},
	} {
		d := &openDirectory{Directory: &one}
		if before := r.directories["accounts"]; before != nil {
			before.Directory = d.Directory
		} else {
			r.directories["accounts"] = d
		}
		_, _ = r.ask(t.Context(), "accounts", Query{}, false)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := r.ask(gone, "accounts", Query{}, false); err == nil {
		t.Error("answered whom nobody can answer any more")
	}
	want := []AnswerCount{
		{"accounts", "found", "asked", 1}, {"accounts", "found", "cache", 1}, {"accounts", "found", "stale", 1},
		{"accounts", "unknown", "asked", 1}, {"accounts", "unknown", "cache", 1},
		{"accounts", "denied", "asked", 1}, {"accounts", "failed", "asked", 2},
	}
	if diff := cmp.Diff(want, r.Answers()); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
	if n := r.Steps().Directory.Read().Count; n != 8 {
		t.Errorf("counted the time of %d answers, want 8", n)
	}
}

// A verifier is counted apart from a directory that has its name.
func TestAnswersApart(t *testing.T) {
	counted := func() *openDirectory {
		d := new(openDirectory)
		d.answers.count(directories.Answer{}, nil)
		return d
	}
	r := &Router{verifier: counted(), tokens: counted(), directories: map[string]*openDirectory{"tokens": counted()}}
	var names []string
	for _, a := range r.Answers() {
		names = append(names, a.Directory)
	}
	if diff := cmp.Diff([]string{"tokens", "verifier", "auth.tokens"}, names); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}
