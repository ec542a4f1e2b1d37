package tlsstore

import (
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// settle decides about every pair that a change has touched, and about those that are kept: first which of them are
// complete, then what is served, then what there is to complain of.
func (r *registry) settle(now time.Time) {
	r.revisitKept()
	r.assessTouched()
	if r.starting && r.incomplete() {
		r.learnLeftovers()
		r.assessTouched()
	}
	// What is new is listed before what is old is struck off, so that no name is without a certificate between the two.
	for p, c := range r.proposed {
		if p.complete && !r.unfinished(p, c) {
			r.adopt(p, c)
		}
	}
	for p := range r.proposed {
		if !p.complete || r.unfinished(p, r.proposed[p]) {
			r.keepOrDrop(p, now)
		}
	}
	r.remember()
	r.describe(now)
	r.proposed = make(map[*pair]candidate)
}

// revisitKept touches all that may have changed for the pairs that are kept.
func (r *registry) revisitKept() {
	for p := range r.kept {
		r.touched[p] = true
		for _, f := range []*file{p.chain, p.key} {
			r.files[f] = true
			for _, l := range f.has().leaves {
				r.touched[l.pair] = true
			}
		}
	}
}

// assessTouched looks for the files of every pair that was touched. A key that is learned on the way touches others.
func (r *registry) assessTouched() {
	for len(r.touched) > 0 {
		for p := range r.touched {
			delete(r.touched, p)
			r.assess(p)
		}
	}
}

// assess finds out whether a pair is complete. But for the start, it is so only when it was loaded.
func (r *registry) assess(p *pair) {
	chain, key, sure := r.match(p)
	c := candidate{chain: chain, key: key}
	p.complete, p.sure, p.trouble = key != nil, sure, ""
	r.use(p, key)
	if p.complete && !r.starting {
		var err error
		if c.cert, err = r.load(p, chain, key); err != nil && !ours(err) {
			p.complete, p.trouble = false, err.Error()
		}
	}
	r.proposed[p] = c
}

// use notes where a pair has its key, or that it waits for one.
func (r *registry) use(p *pair, key *file) {
	switch {
	case key == nil && !p.waiting:
		p.waiting = true
		p.ring.waiting = append(p.ring.waiting, p)
	case key != nil && p.keyAt != key:
		key.users = append(key.users, p)
	}
	p.keyAt = key
}

func (r *registry) incomplete() bool {
	for p := range r.proposed {
		if !p.complete {
			return true
		}
	}
	return false
}

// learnLeftovers parses the private keys that nobody trusts to be his: some lie far from their certificates.
func (r *registry) learnLeftovers() {
	var left []*file
	r.tree.all(func(f *file) {
		if c := f.has(); c.sealed && len(c.users) == 0 {
			left = append(left, f)
		}
	})
	results := make([]parsed, len(left))
	errs := make([]error, len(left))
	var next atomic.Int64
	start(runtime.GOMAXPROCS(0), func(int) {
		for i := next.Add(1) - 1; int(i) < len(left); i = next.Add(1) - 1 {
			results[i], errs[i] = r.scanner.unsealed(left[i])
		}
	})()
	for i, f := range left {
		r.learned(f, results[i], errs[i])
	}
}

// adopt serves a pair from these files.
func (r *registry) adopt(p *pair, c candidate) {
	came := !p.listed
	if came || p.chain != c.chain || p.key != c.key {
		r.index.put(p, c.chain, c.key)
	}
	if came {
		r.count(p.ring, 1)
	}
	p.kept = nil
	p.pinned.Store(false)
	delete(r.kept, p)
	if c.cert != nil {
		p.loading.Lock() // a handshake may be reading what was there before
		r.ready(p, c.cert)
		p.loading.Unlock()
	}
	if came && !r.starting {
		r.log.Info("certificate loaded", zap.Strings("names", p.names), zap.String("file", c.chain.path()), zap.Time("not_after", p.notAfter()))
	}
}

// unfinished reports whether a pair has lost the longer part of its chain because a file is being written: while
// fullchain.pem is broken, cert.pem has the same certificate, but no intermediate.
func (r *registry) unfinished(p *pair, c candidate) bool {
	loaded := p.loaded.Load()
	return p.listed && loaded != nil && c.cert != nil && len(c.cert.Certificate) < len(loaded.Certificate) &&
		p.chain != c.chain && !r.finished(p.chain)
}

// finished reports whether a file is gone, or holds part of a pair that is complete.
func (r *registry) finished(f *file) bool { return f.gone || r.used(f) }

func (r *registry) used(f *file) bool {
	f = r.tree.successor(f)
	for _, l := range f.has().leaves {
		if l.pair.complete {
			return true
		}
	}
	for _, id := range f.has().keys {
		for _, p := range r.rings[id].pairs {
			if p.complete {
				return true
			}
		}
	}
	return false
}

// keepOrDrop takes a pair that its files no longer hold. While these are on their way from one certificate to the next, broken,
// without the other half, or all gone for less than grace, the pair serves on, if it is in memory.
func (r *registry) keepOrDrop(p *pair, now time.Time) {
	if !p.listed {
		r.forget(p)
		return
	}
	var gone time.Time
	if p.chain.gone && p.key.gone {
		gone = now
		if p.kept != nil && !p.kept.gone.IsZero() {
			gone = p.kept.gone
		}
	}
	supplanted := r.finished(p.chain) && (r.used(p.chain) || r.used(p.key))
	if supplanted || p.loaded.Load() == nil || !gone.IsZero() && now.Sub(gone) >= r.tuning.grace {
		r.drop(p, supplanted)
		return
	}
	why := fmt.Sprintf("gone; the certificate is dropped unless it is back within %v", r.tuning.grace)
	if gone.IsZero() {
		why = r.lack(p) + "; the former certificate, valid until " + day(p.notAfter()) + ", serves on"
	}
	p.kept = &kept{why, gone}
	p.pinned.Store(true)
	r.kept[p] = true
}

// lack says what is wrong with the files of a pair that is kept.
func (r *registry) lack(p *pair) string {
	for _, f := range []*file{p.chain, p.key} {
		if f.passed != matters {
			return f.passed.String()
		}
		if f.broken {
			return r.faults[f]
		}
	}
	for _, l := range p.chain.has().leaves {
		if !l.pair.complete {
			return r.want(l.pair)
		}
	}
	if p.trouble != "" {
		return p.trouble
	}
	return "it is no longer there, or holds something else"
}

// want says what a pair lacks.
func (r *registry) want(p *pair) string {
	if p.trouble != "" {
		return p.trouble
	}
	return "no private key for the certificate of " + describeNames(p.names)
}

func (r *registry) drop(p *pair, supplanted bool) {
	if !supplanted && p.loaded.Load() == nil {
		r.log.Warn("a certificate cannot be kept until its files are in order: it was not used lately",
			zap.Strings("names", p.names), zap.String("file", p.chain.path()))
	}
	r.index.remove(p)
	r.count(p.ring, -1)
	r.log.Info("certificate dropped", zap.Strings("names", p.names), zap.String("file", p.chain.path()), zap.Time("not_after", p.notAfter()))
	p.kept = nil
	p.pinned.Store(false)
	p.loaded.Store(nil)
	delete(r.kept, p)
	r.forget(p)
}

// count notes how many certificates for a key are served. The first and the last decide whether a file with it is of use.
func (r *registry) count(ring *keyring, change int) {
	before := ring.listed
	ring.listed += change
	if before == 0 || ring.listed == 0 {
		for _, f := range ring.files {
			r.files[f] = true
		}
	}
}

// forget ends what is known of a pair that no file has.
func (r *registry) forget(p *pair) {
	if len(p.sources) > 0 {
		return
	}
	delete(r.pairs, p.id)
	r.found.set(r.log, p, Problem{})
	is := func(q *pair) bool { return q == p }
	p.ring.pairs = slices.DeleteFunc(p.ring.pairs, is)
	p.ring.waiting = slices.DeleteFunc(p.ring.waiting, is)
	r.release(p.ring)
}

// remember lets files that are gone return to what is kept of them.
func (r *registry) remember() {
	clear(r.tree.ghosts)
	for p := range r.kept {
		for _, f := range []*file{p.chain, p.key} {
			if f.gone {
				r.tree.ghosts[f.path()] = f
			}
		}
	}
}
