package tlsstore

import (
	"iter"
	"path/filepath"
	"slices"
	"strings"
)

// match finds the files to serve a pair from: the best chain, and a private key, which is sought beside the chain first. While
// keys are sealed, what lies nearest is trusted to be the one, and is verified later or when it is used. sure says that
// the key was seen.
func (r *registry) match(p *pair) (chain, key *file, sure bool) {
	if len(p.sources) == 0 {
		return nil, nil, false
	}
	chain = p.sources[0].file
	if key = nearest(chain, p.ring); key != nil {
		return chain, key, true
	}
	sealed := sealedNear(p)
	if len(sealed) == 1 && r.starting {
		return chain, sealed[0], false
	}
	for _, f := range sealed {
		r.learn(f)
	}
	key = nearest(chain, p.ring)
	return chain, key, key != nil
}

// nearest returns the file with the private key that is closest to the chain: the same, one of the same stem, one in the same
// directory, or any.
func nearest(chain *file, ring *keyring) *file {
	has := func(f *file) bool { return slices.Contains(f.has().keys, ring.id) }
	switch {
	case len(ring.files) == 0:
		return nil
	case has(chain):
		return chain
	}
	for f := range relatives(chain) {
		if has(f) {
			return f
		}
	}
	if i := slices.IndexFunc(ring.files, func(f *file) bool { return f.dir == chain.dir }); i >= 0 {
		return ring.files[i]
	}
	return ring.files[0]
}

// crowd is how many files a directory can have that is searched for a private key of whatever name.
const crowd = 32

// sealedNear returns the files next to a pair's that may have its private key: the same file, or else those of the
// same stem, or else those in the same directory.
func sealedNear(p *pair) []*file {
	for _, s := range p.sources {
		if s.file.has().sealed {
			return []*file{s.file}
		}
	}
	var near []*file
	for _, s := range p.sources {
		for f := range relatives(s.file) {
			if f.has().sealed {
				near = append(near, f)
			}
		}
	}
	if len(near) > 0 {
		return near
	}
	for _, s := range p.sources {
		if d := s.file.dir; len(d.files) <= crowd {
			for _, f := range d.files {
				if f.has().sealed && len(f.leaves) == 0 && !slices.Contains(near, f) {
					near = append(near, f)
				}
			}
		}
	}
	return near
}

// keySuffixes follow a chain's stem in the names of private keys: mail.key or mail-key.pem for mail.crt or mail.pem. HAProxy's
// mail.pem.key has its own rule.
var keySuffixes = []string{".key", ".pem", ".key.pem", "-key.pem"}

// relatives yields the files that may have a chain's private key going by their names. A key of any other name is parsed at the
// start, if a chain is still without one then.
func relatives(chain *file) iter.Seq[*file] {
	return func(yield func(*file) bool) {
		stem := strings.TrimSuffix(chain.name, filepath.Ext(chain.name))
		for _, suffix := range keySuffixes {
			if f := chain.dir.file(stem + suffix); f != nil && f != chain && !yield(f) {
				return
			}
		}
		if f := chain.dir.file(chain.name + ".key"); f != nil {
			yield(f)
		}
	}
}
