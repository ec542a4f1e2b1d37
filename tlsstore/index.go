package tlsstore

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// index is what handshakes read: the pairs by name. A change costs as much as the pair has names, however many there are of
// others. It is safe for concurrent use.
type index struct {
	mu sync.RWMutex
	// names maps "mail.example" and "*.example" to the pairs that have this name, in the order of prefer. The slices never
	// change; another one takes their place.
	names map[string][]*pair
	count int // of pairs
}

func newIndex() *index { return &index{names: make(map[string][]*pair)} }

// put lists a pair that is to be read from these files, anew if it is listed already.
func (x *index) put(p *pair, chain, key *file) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if p.listed {
		x.unlist(p)
	}
	p.chain, p.key = chain, key
	for _, name := range p.names {
		pairs := x.names[name]
		i, _ := slices.BinarySearchFunc(pairs, p, prefer)
		x.names[name] = slices.Concat(pairs[:i], []*pair{p}, pairs[i:])
	}
	p.listed = true
	x.count++
}

// remove strikes a pair off the list.
func (x *index) remove(p *pair) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if p.listed {
		x.unlist(p)
	}
}

func (x *index) unlist(p *pair) {
	for _, name := range p.names {
		pairs := x.names[name]
		rest := slices.DeleteFunc(slices.Clone(pairs), func(q *pair) bool { return q == p })
		if len(rest) == 0 {
			delete(x.names, name)
		} else {
			x.names[name] = slices.Clip(rest)
		}
	}
	p.listed = false
	x.count--
}

// size is how many pairs there are.
func (x *index) size() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.count
}

// files returns the files that a pair is to be read from.
func (x *index) files(p *pair) (chain, key *file) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return p.chain, p.key
}

// with returns the pairs that have just this name.
func (x *index) with(name string) []*pair {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.names[name]
}

// lookup finds the pairs for a name. Those with the exact name come first; those with a wildcard follow, for clients
// that support none of the others.
func (x *index) lookup(name string) choice {
	_, parent, _ := strings.Cut(name, ".")
	x.mu.RLock()
	exact, wildcard := x.names[name], x.names["*."+parent]
	x.mu.RUnlock()
	switch {
	case len(exact) == 0 && len(wildcard) == 0:
		return choice{how: Refused}
	case len(exact) == 0:
		return choice{Wildcard, name, wildcard}
	case len(wildcard) == 0, name[0] == '*': // a default may be the wildcard itself
		return choice{Exact, name, exact}
	}
	return choice{Exact, name, slices.Concat(exact, wildcard)}
}

// superseded returns the pair that is shown in the place of p, or nil if for one of its names p can be shown: the first
// with its type of key is, one that is valid before one that is not. An operator's file supersedes a pair of ACME whatever
// the type of its key, as long as it is valid.
func (x *index) superseded(p *pair, now time.Time) *pair {
	var by *pair
	for _, name := range p.names {
		if by = first(x.with(name), p, now); by == p || by == nil {
			return nil
		}
	}
	return by
}

// first returns the one of the pairs that clients which support p are shown.
func first(pairs []*pair, p *pair, now time.Time) *pair {
	rivals := func(q *pair) bool {
		return q.kind.keyType == p.kind.keyType || p.acme() && !q.acme()
	}
	best := slices.IndexFunc(pairs, func(q *pair) bool { return rivals(q) && q.valid(now) })
	if best < 0 {
		best = slices.IndexFunc(pairs, rivals)
	}
	if best < 0 {
		return nil
	}
	return pairs[best]
}
