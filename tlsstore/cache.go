package tlsstore

import (
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
)

// cacheSize bounds how many pairs are held ready for handshakes, at 1 to 5 KiB each. To read one again takes about as long as
// a handshake.
const cacheSize = 4096

// cache knows which pairs are loaded, and has the one forgotten that was not used for the longest time, more or less: the
// hand of a clock goes around, and takes the first that was not used since it came by.
type cache struct {
	mu   sync.Mutex
	size int
	ring []*pair
	hand int
}

// add takes a pair that has just been loaded.
func (c *cache) add(p *pair) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ring) < c.size {
		c.ring = append(c.ring, p)
		return
	}
	for range 2 * len(c.ring) {
		at := c.hand
		c.hand = (c.hand + 1) % len(c.ring)
		if q := c.ring[at]; !q.pinned.Load() && !q.used.Swap(false) {
			q.loaded.Store(nil)
			c.ring[at] = p
			return
		}
	}
	c.ring = append(c.ring, p) // all are in use, or pinned
}

// warm reports whether enough pairs are loaded that nobody has asked for: for a small host those are all.
func (c *cache) warm() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ring) >= c.size/16
}

// forget has the pairs loaded again of which stale says so.
func (c *cache) forget(stale func(*pair) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ring = slices.DeleteFunc(c.ring, func(p *pair) bool {
		forgotten := !p.pinned.Load() && stale(p)
		if forgotten {
			p.loaded.Store(nil)
		}
		return forgotten
	})
	c.hand = 0
}

// certificate returns what a handshake needs of a pair, and reads it if nobody has done so lately. It is safe for concurrent
// use.
func (s *Store) certificate(p *pair) (*tls.Certificate, error) {
	if cert := p.loaded.Load(); cert != nil {
		if !p.used.Load() {
			p.used.Store(true)
		}
		return cert, nil
	}
	p.loading.Lock()
	defer p.loading.Unlock()
	if cert := p.loaded.Load(); cert != nil {
		return cert, nil
	}
	chain, key := s.index.files(p)
	cert, err := s.load(p, chain, key)
	if err != nil {
		s.suspect(p)
		return nil, err
	}
	s.ready(p, cert)
	return cert, nil
}

// ready makes a pair known as loaded.
func (s *Store) ready(p *pair, cert *tls.Certificate) {
	if p.loaded.Swap(cert) == nil {
		s.cache.add(p)
	}
}

// load reads a pair from its files, and makes sure that they still hold it.
func (s *Store) load(p *pair, chainFile, keyFile *file) (*tls.Certificate, error) {
	inChain, err := s.scanner.unsealed(chainFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", chainFile.path(), bare(err))
	}
	inKey := inChain
	if keyFile != chainFile {
		if inKey, err = s.scanner.unsealed(keyFile); err != nil {
			return nil, fmt.Errorf("%s: %w", keyFile.path(), bare(err))
		}
	}
	c := slices.IndexFunc(inChain.chains, func(c chain) bool { return c.id == p.id })
	if c < 0 {
		return nil, fmt.Errorf("%s: no longer holds the certificate", chainFile.path())
	}
	found := inChain.chains[c]
	k := slices.IndexFunc(inKey.keys, func(k key) bool { return k.id == found.key })
	if k < 0 {
		return nil, fmt.Errorf("the private key in %s is not the certificate's", keyFile.path())
	}
	cert := &tls.Certificate{Certificate: found.der, PrivateKey: inKey.keys[k].signer}
	if isLone(found) {
		cert.Certificate = s.scanner.parser.authorities.complete(found.leaf)
	}
	return cert, nil
}
