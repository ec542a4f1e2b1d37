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
	faults   map[*file]string    // what is wrong with those that are broken
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
		faults: make(map[*file]string), proposed: make(map[*pair]candidate), found: make(problems),
	}
}

// take learns which files are gone, and what is in others.
func (r *registry) take(lost map[*file]bool, readings []*reading) {
	for f := range lost {
		r.replace(f, nil)
	}
	fresh := false
	for _, reading := range readings {
		r.replace(reading.file, reading)
		fresh = fresh || reading.fresh
	}
	if fresh {
		r.completeLone()
	}
}

// replace takes what is in a file now for what was in it before. nil is a file that is gone.
func (r *registry) replace(f *file, now *reading) {
	if now == nil {
		now = &reading{file: f, state: state{gone: true}}
	}
	same := f.contents.same(now.contents) && r.faults[f] == now.problem && f.gone == now.gone
	f.state = now.state
	if same {
		return
	}
	r.fault(f, now.problem)
	r.detach(f)
	f.contents = now.contents
	r.attach(f)
}

// fault notes what is wrong with a file; "" is nothing.
func (r *registry) fault(f *file, problem string) {
	r.files[f] = true
	f.broken = problem != ""
	if f.broken {
		r.faults[f] = problem
	} else {
		delete(r.faults, f)
	}
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
		r.release(ring)
	}
	for _, p := range old.users {
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

// hang puts the file on the rings of its keys, and touches the pairs that wait for one.
func (r *registry) hang(f *file, keys []digest) {
	for _, id := range keys {
		ring := r.ring(id)
		ring.files = append(ring.files, f)
		for _, p := range ring.waiting {
			p.waiting = false
			r.touched[p] = true
		}
		ring.waiting = nil
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

// release forgets a key that nobody has or wants. The pair that was the last to want it may come again later, when a file has brought
// the key back.
func (r *registry) release(ring *keyring) {
	if len(ring.pairs) == 0 && len(ring.files) == 0 && r.rings[ring.id] == ring {
		delete(r.rings, ring.id)
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
	for _, p := range f.users {
		if !p.sure {
			r.touched[p] = true
		}
	}
	r.files[f] = true
	if err != nil {
		r.fault(f, bare(err).Error())
		return
	}
	f.keys = publicKeys(p.keys)
	r.hang(f, f.keys)
}

// verify makes sure of a private key that has been trusted so far. What is well stays as it is.
func (r *registry) verify(f *file) {
	r.learn(f)
	for _, p := range f.has().users {
		if !p.sure && p.keyAt == f && slices.Contains(f.keys, p.ring.id) {
			p.sure = true
			delete(r.touched, p)
			r.warm(p)
		}
	}
}

// warm loads a pair for the first handshake, as long as there is room. It is also what is kept if its files break.
func (r *registry) warm(p *pair) {
	if p.listed && !r.cache.warm() {
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
