package tlsstore

import (
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
	if key = nearest(chain, p.ring.files); key != nil {
		return chain, key, true
	}
	sealed := r.sealedNear(p)
	if len(sealed) == 1 && r.starting {
		return chain, sealed[0], false
	}
	for _, f := range sealed {
		r.learn(f)
	}
	key = nearest(chain, p.ring.files)
	return chain, key, key != nil
}

// nearest returns the file closest to the chain: the same, one in the same directory, or any.
func nearest(chain *file, files []*file) *file {
	if len(files) == 0 {
		return nil
	}
	return slices.MinFunc(files, func(a, b *file) int { return distance(chain, a) - distance(chain, b) })
}

func distance(chain, key *file) int {
	switch {
	case chain == key:
		return 0
	case chain.dir == key.dir && related(chain.name, key.name):
		return 1
	case chain.dir == key.dir:
		return 2
	}
	return 3
}

// crowd is how many files a directory can have that is searched for a private key of whatever name.
const crowd = 32

// sealedNear returns the files next to a pair's that may have its private key: the same file, or else those of the
// same stem, or else those in the same directory.
func (r *registry) sealedNear(p *pair) []*file {
	for _, s := range p.sources {
		if s.file.has().sealed {
			return []*file{s.file}
		}
	}
	var near []*file
	for _, s := range p.sources {
		near = append(near, sealedOfStem(s.file)...)
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

// sealedOfStem finds mail.key for mail.crt, and mail.pem.key for mail.pem. Names with the same stem are neighbours in the
// directory's order.
func sealedOfStem(chain *file) (near []*file) {
	prefix := stem(chain.name)
	files := chain.dir.files
	i, _ := slices.BinarySearchFunc(files, prefix, byName)
	for ; i < len(files) && strings.HasPrefix(files[i].name, prefix); i++ {
		if f := files[i]; f != chain && f.has().sealed && related(chain.name, f.name) {
			near = append(near, f)
		}
	}
	return near
}

func stem(name string) string { return strings.TrimSuffix(name, filepath.Ext(name)) }

func related(chain, key string) bool { return stem(key) == stem(chain) || stem(key) == chain }
