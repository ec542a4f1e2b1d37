package backends

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"jackdaw/backends/directories"
	"jackdaw/internal/tally"
)

// Steps are the times that the steps of logins and deliveries have taken which are done here. They outlive a Router. Safe for
// concurrent use.
type Steps struct {
	Verifier  tally.Histogram // to decide about a password or token
	Directory tally.Histogram // to place the user, from memory or not
	Connect   tally.Histogram // to get to a store, up to where a login can begin
	Login     tally.Histogram // for the store to let the user in, or to refuse
}

// Steps returns the times since the start.
func (r *Router) Steps() *Steps { return &r.doors.steps }

// What a directory may answer, and from where. The words are for metrics.
var (
	answerOutcomes = [...]string{"found", "unknown", "denied", "failed"}
	answerSources  = [...]string{"asked", "cache", "stale"}
)

// answers counts what a directory or verifier has answered. Safe for concurrent use.
type answers struct {
	counts [len(answerOutcomes)][len(answerSources)]atomic.Uint64
}

func (a *answers) count(answer directories.Answer, err error) {
	outcome, source := 0, 0
	switch {
	case errors.Is(err, directories.ErrNotFound):
		outcome = 1
	case errors.Is(err, directories.ErrDenied):
		outcome = 2
	case err != nil:
		outcome = 3
	}
	switch {
	case !answer.Down.IsZero():
		source = 2
	case !answer.Kept.IsZero():
		source = 1
	}
	a.counts[outcome][source].Add(1)
}

// lookup asks d, and counts its answer. If the client leaves before that comes, it says nothing of d.
func (a *answers) lookup(ctx context.Context, d directories.Directory, q directories.Query, took *tally.Histogram) (directories.Answer, error) {
	began := time.Now()
	answer, err := d.Lookup(ctx, q)
	if err == nil || ctx.Err() == nil {
		took.Since(began)
		a.count(answer, err)
	}
	return answer, err
}

// AnswerCount says how often a directory or verifier has given one kind of answer, since it was configured as it is.
type AnswerCount struct {
	Directory string // its name; verifiers are called verifier and tokens, with "auth." before it where a directory is called so
	Outcome   string // found, unknown, denied, or failed
	Source    string // asked, cache, or stale: from memory because nobody could be asked
	Count     uint64
}

// Answers lists what directories and verifiers have answered, by their names. What none has ever answered is left out.
func (r *Router) Answers() (all []AnswerCount) {
	for _, name := range slices.Sorted(maps.Keys(r.directories)) {
		all = append(all, r.directories[name].answers.list(name)...)
	}
	if r.verifier != nil {
		all = append(all, r.verifier.answers.list(r.unlike("verifier"))...)
	}
	if r.tokens != nil {
		all = append(all, r.tokens.answers.list(r.unlike("tokens"))...)
	}
	return all
}

// unlike makes a name that no directory has: metrics cannot have two counters of one name.
func (r *Router) unlike(name string) string {
	for r.directories[name] != nil {
		name = "auth." + name
	}
	return name
}

func (a *answers) list(name string) (all []AnswerCount) {
	for i, outcome := range answerOutcomes {
		for j, source := range answerSources {
			if n := a.counts[i][j].Load(); n > 0 {
				all = append(all, AnswerCount{name, outcome, source, n})
			}
		}
	}
	return all
}
