package tlsstore

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// pair is a chain with its private key. It never changes, as handshakes may have it at hand.
type pair struct {
	cert  tls.Certificate
	id    digest   // of the leaf
	names []string // as the index has them

	chainFile, keyFile string
	copies             []string // other files with the same leaf

	kept string    // why it serves although its files no longer hold it
	gone time.Time // since when all of its files have been missing
}

// pairing is what the files of one scan amount to.
type pairing struct {
	pairs    map[digest]*pair
	used     map[string]bool // files that hold part of a pair
	problems []Problem
}

// holder is a private key and the file it is in.
type holder struct {
	key
	file string
}

// pairUp finds for each chain the private key, in whatever file that is. Its problems follow those of the scan.
func pairUp(files []found, problems []Problem) *pairing {
	p := &pairing{pairs: make(map[digest]*pair), used: make(map[string]bool), problems: problems}
	keys := holders(files)
	paired := make(map[digest]bool)
	for _, f := range files {
		for _, c := range f.chains {
			if k, ok := keys[c.key]; ok {
				p.add(f.path, c, k)
				paired[c.key] = true
			} else {
				p.problem(f.path, "no private key for the certificate of "+describeNames(c.leaf.DNSNames))
			}
		}
	}
	for _, f := range files {
		for _, k := range f.keys {
			if paired[k.id] {
				p.used[f.path] = true
			} else {
				p.problem(f.path, "no certificate for the private key")
			}
		}
	}
	return p
}

// holders finds the file for each key, the first if there are several.
func holders(files []found) map[digest]holder {
	keys := make(map[digest]holder)
	for _, f := range files {
		for _, k := range f.keys {
			if _, twice := keys[k.id]; !twice {
				keys[k.id] = holder{k, f.path}
			}
		}
	}
	return keys
}

func (p *pairing) problem(file, text string) {
	p.problems = append(p.problems, Problem{file, text})
}

// add takes a chain with its key. Where several files have the same leaf, the longest chain is the one to serve:
// certbot's fullchain.pem and not its cert.pem.
func (p *pairing) add(file string, c chain, k holder) {
	p.used[file] = true
	next := &pair{
		cert:      tls.Certificate{Certificate: c.der, PrivateKey: k.signer, Leaf: c.leaf},
		id:        c.id,
		names:     c.names,
		chainFile: file,
		keyFile:   k.file,
	}
	if old := p.pairs[c.id]; old != nil {
		if len(old.cert.Certificate) >= len(c.der) {
			old, next = next, old
		}
		next.copies = append(append(next.copies, old.copies...), old.chainFile)
	}
	p.pairs[c.id] = next
}

// list returns the pairs in an order that depends on nothing but the files.
func (p *pairing) list() []*pair {
	return slices.SortedFunc(maps.Values(p.pairs), prefer)
}

// keep retains those of the former pairs whose files are on their way from one certificate to the next: broken, without
// the other half, or all gone for less than grace.
func (p *pairing) keep(former []*pair, now time.Time, grace time.Duration) {
	for _, old := range former {
		if p.supplants(old) {
			continue
		}
		again := *old
		again.gone = goneSince(old, now)
		found := p.takeProblem(old)
		switch {
		case again.gone.IsZero():
			again.kept = found + "; the former certificate, valid until " + day(old.cert.Leaf.NotAfter) + ", serves on"
		case now.Sub(again.gone) < grace:
			again.kept = fmt.Sprintf("gone; the certificate is dropped unless it is back within %v", grace)
		default:
			continue
		}
		p.problem(old.chainFile, again.kept)
		p.pairs[old.id] = &again
	}
}

// goneSince returns since when all files of the pair have been missing, or zero if one is there.
func goneSince(p *pair, now time.Time) time.Time {
	switch {
	case !isGone(p.chainFile) || !isGone(p.keyFile):
		return time.Time{}
	case p.gone.IsZero():
		return now
	}
	return p.gone
}

// supplants reports whether the pairing is complete without the old pair: it has the same certificate again, or what is
// left of the old pair's files belongs to another pair.
func (p *pairing) supplants(old *pair) bool {
	chainDone := p.used[old.chainFile] || isGone(old.chainFile)
	if again := p.pairs[old.id]; again != nil {
		// While fullchain.pem is being written, cert.pem has the same certificate, but no intermediate.
		return chainDone || len(again.cert.Certificate) >= len(old.cert.Certificate)
	}
	return chainDone && (p.used[old.chainFile] || p.used[old.keyFile])
}

// takeProblem removes what was found wrong with the files of the old pair, and returns the first of it: one warning is
// enough.
func (p *pairing) takeProblem(old *pair) string {
	ours := func(q Problem) bool {
		return q.File == old.chainFile || q.File == old.keyFile || slices.Contains(old.copies, q.File)
	}
	text := "it is no longer there, or holds something else"
	if i := slices.IndexFunc(p.problems, ours); i >= 0 {
		text = p.problems[i].Text
	}
	p.problems = slices.DeleteFunc(p.problems, ours)
	return text
}

func isGone(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// valid reports whether clients accept the certificate at that time.
func (p *pair) valid(now time.Time) bool {
	return !now.Before(p.cert.Leaf.NotBefore) && !now.After(p.cert.Leaf.NotAfter)
}

func (p *pair) keyType() string { return KeyType(p.cert.Leaf) }

// KeyType names a certificate's key as operators know it, such as "ECDSA P-256".
func KeyType(c *x509.Certificate) string {
	switch public := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + public.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", public.N.BitLen())
	}
	return c.PublicKeyAlgorithm.String()
}

// prefer orders pairs: ECDSA before RSA, because signing is cheaper, then the latest.
func prefer(a, b *pair) int {
	x, y := a.cert.Leaf, b.cert.Leaf
	return cmp.Or(
		cmp.Compare(rank(a), rank(b)),
		y.NotAfter.Compare(x.NotAfter),
		y.NotBefore.Compare(x.NotBefore),
		strings.Compare(a.chainFile, b.chainFile),
	)
}

func rank(p *pair) int {
	switch p.cert.Leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return 0
	case ed25519.PublicKey:
		return 1
	}
	return 2
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
