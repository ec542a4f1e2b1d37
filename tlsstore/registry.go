package tlsstore

import (
	"crypto/tls"
	"slices"

	"go.uber.org/zap"
)

// registry knows of every certificate and every private key in which files they are, and brings them together. Whatever has
// changed is taken by replace, which notes what that concerns; settle then decides about just that.
type registry struct {
	*Store
	pairs map[digest]*pair    // by leaf
	rings map[digest]*keyring // by public key

	// starting says that nothing is served yet: a private key that lies beside its chain is trusted to be the right one.
	starting bool
	// searched says that all files have been looked at, and not just those that have changed.
	searched bool

	touched  map[*pair]bool      // to be settled
	files    map[*file]bool      // whose problems are to be looked at
	kept     map[*pair]bool      // that serve although their files no longer hold them
	proposed map[*pair]candidate // what settle has found so far
	found    problems
}

// candidate is what a pair could be served from.
type candidate struct {
	chain, key *file
	cert       *tls.Certificate // nil if it was not loaded
}

func newRegistry(s *Store) *registry {
	return &registry{
		Store: s, starting: true,
		pairs: make(map[digest]*pair), rings: make(map[digest]*keyring),
		touched: make(map[*pair]bool), files: make(map[*file]bool), kept: make(map[*pair]bool),
		proposed: make(map[*pair]candidate), found: make(problems),
	}
}

// replace takes what is in a file now for what was in it before. nil is a file that is gone.
func (r *registry) replace(f *file, now *reading) {
	if now == nil {
		now = &reading{file: f, gone: true}
	}
	same := f.contents.same(now.contents) && f.problem == now.problem && f.gone == now.gone
	f.gone, f.young, f.print, f.problem, f.passed = now.gone, now.young, now.print, now.problem, now.passed
	if same {
		return
	}
	r.files[f] = true
	r.detach(f)
	f.contents = now.contents
	r.attach(f)
}

func (r *registry) detach(f *file) {
	old := f.has()
	for _, l := range old.leaves {
		l.pair.drop(f)
		r.touched[l.pair] = true
	}
	for _, id := range old.keys {
		ring := r.rings[id]
		ring.files = slices.DeleteFunc(ring.files, func(g *file) bool { return g == f })
		r.touch(ring)
	}
	for _, p := range old.trusting {
		r.touched[p] = true
	}
}

func (r *registry) attach(f *file) {
	fresh := f.has()
	for i, l := range fresh.leaves {
		p := r.pairs[l.pair.id]
		if p == nil {
			p = l.pair
			p.ring = r.ring(p.ring.id)
			p.ring.pairs = append(p.ring.pairs, p)
			r.pairs[p.id] = p
		}
		f.leaves[i].pair = p
		p.add(f, l.depth)
		r.touched[p] = true
	}
	r.hang(f, fresh.keys)
}

// hang puts the file on the rings of its keys.
func (r *registry) hang(f *file, keys []digest) {
	for _, id := range keys {
		ring := r.ring(id)
		if !slices.Contains(ring.files, f) {
			ring.files = append(ring.files, f)
		}
		r.touch(ring)
	}
}

func (r *registry) ring(id digest) *keyring {
	ring := r.rings[id]
	if ring == nil {
		ring = &keyring{id: id}
		r.rings[id] = ring
	}
	return ring
}

// touch has all settled that a key concerns.
func (r *registry) touch(ring *keyring) {
	for _, p := range ring.pairs {
		r.touched[p] = true
	}
	for _, f := range ring.files {
		r.files[f] = true
	}
}

// learn parses the private keys of a file that has been sealed so far.
func (r *registry) learn(f *file) {
	if !f.has().sealed {
		return
	}
	p, err := r.scanner.unsealed(f)
	r.learned(f, p, err)
}

func (r *registry) learned(f *file, p parsed, err error) {
	f.sealed = false
	trusting := f.trusting
	f.trusting = nil
	for _, p := range trusting {
		r.touched[p] = true
	}
	r.files[f] = true
	if err != nil {
		f.problem = reason(err)
		return
	}
	for _, k := range p.keys {
		f.keys = append(f.keys, k.id)
	}
	r.hang(f, f.keys)
}

// verify makes sure of a private key that has been trusted so far. What is well stays as it is.
func (r *registry) verify(f *file) {
	trusting := f.has().trusting
	r.learn(f)
	for _, p := range trusting {
		if slices.Contains(p.ring.files, f) {
			p.sure = true
			delete(r.touched, p)
			r.warm(p)
		}
	}
}

// warm loads a pair for the first handshake, as long as there is room. It is also what is kept if its files break.
func (r *registry) warm(p *pair) {
	if p.listed && !r.cache.full() {
		if _, err := r.certificate(p); err != nil {
			r.log.Debug("loading a certificate", zap.Strings("names", p.names), zap.Error(err))
		}
	}
}

// completeLone looks again at the chains without an issuer, since one more authority is known.
func (r *registry) completeLone() {
	lone := func(p *pair) bool { return p.lone }
	r.cache.forget(lone)
	for _, p := range r.pairs {
		if lone(p) && p.listed {
			r.touched[p] = true
		}
	}
}
