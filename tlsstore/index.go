package tlsstore

import (
	"slices"
	"strings"
	"time"
)

// index is what handshakes read. It never changes; a new one replaces it.
type index struct {
	// names maps "mail.example" and "*.example" to the pairs that have this name, in the order of prefer.
	names    map[string][]*pair
	pairs    []*pair
	problems []Problem
}

// newIndex expects the pairs in the order of prefer.
func newIndex(pairs []*pair, problems []Problem, now time.Time) *index {
	x := &index{names: make(map[string][]*pair), pairs: pairs, problems: problems}
	for _, p := range pairs {
		for _, name := range p.names {
			x.names[name] = append(x.names[name], p)
		}
	}
	for _, p := range pairs {
		if text := x.complaint(p, now); text != "" {
			x.problems = append(x.problems, Problem{p.chainFile, text})
		}
	}
	return x
}

// complaint says what is wrong with a certificate that is complete. A superseded one may be as old as it likes.
func (x *index) complaint(p *pair, now time.Time) string {
	leaf := p.cert.Leaf
	switch {
	case len(p.names) == 0:
		return "the certificate has no DNS name among its subject alternative names, which are all that clients look at"
	case p.valid(now) || x.superseded(p, now) != nil:
		return ""
	case now.Before(leaf.NotBefore):
		return "the certificate of " + describeNames(p.names) + " is not valid before " + day(leaf.NotBefore)
	}
	return "the certificate of " + describeNames(p.names) + " expired on " + day(leaf.NotAfter)
}

// superseded returns the pair that is shown in the place of p, or nil if for one of its names p can be shown: the first
// with its type of key is, one that is valid before one that is not.
func (x *index) superseded(p *pair, now time.Time) *pair {
	var by *pair
	for _, name := range p.names {
		alike := func(q *pair) bool { return q.keyType() == p.keyType() }
		best := slices.IndexFunc(x.names[name], func(q *pair) bool { return alike(q) && q.valid(now) })
		if best < 0 {
			best = slices.IndexFunc(x.names[name], alike)
		}
		if by = x.names[name][best]; by == p {
			return nil
		}
	}
	return by
}

// lookup finds the pairs for a name. Those with the exact name come first; those with a wildcard follow, for clients
// that support none of the others.
func (x *index) lookup(name string) choice {
	exact := x.names[name]
	_, parent, _ := strings.Cut(name, ".")
	wildcard := x.names["*."+parent]
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
