package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// layout is a way for certificates to lie on the disk.
type layout struct {
	name    string
	certbot bool // live and archive; else HAProxy's: leaf, intermediate and key in one file, all files in one directory
	rsa     bool // RSA 2048 instead of ECDSA P-256
}

var (
	combined = layout{name: "combined"}
	certbot  = layout{name: "certbot", certbot: true}
	rsaKeys  = layout{name: "rsa", rsa: true}
)

// distinctRSA is how many RSA keys all certificates of a set share, because such a key takes 0.2 seconds to make.
const distinctRSA = 16

// set is a directory full of certificates: one for each name, in one layout. It is not for concurrent use.
type set struct {
	layout
	ca    *authority
	dir   string
	count int
	keys  []crypto.Signer // that are shared; empty: each certificate has its own
}

// openSet takes the set that an earlier run has left below dir, or makes one there.
func openSet(dir string, ca *authority, l layout, count int) (*set, error) {
	s := &set{layout: l, ca: ca, dir: filepath.Join(dir, fmt.Sprintf("%s-%d", l.name, count)), count: count}
	if l.rsa {
		s.keys = make([]crypto.Signer, distinctRSA)
		if err := parallel(distinctRSA, runtime.NumCPU(), func(i int) (err error) {
			s.keys[i], err = rsa.GenerateKey(rand.Reader, 2048)
			return err
		}); err != nil {
			return nil, fmt.Errorf("making RSA keys: %w", err)
		}
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if err := s.fill(); err != nil {
		return nil, fmt.Errorf("making %d certificates in %s: %w", count, s.dir, err)
	}
	return s, nil
}

// fill makes the set's directory under another name first, so that half a set is never taken for one.
func (s *set) fill() error {
	unfinished := *s
	unfinished.dir += ".unfinished"
	if err := os.RemoveAll(unfinished.dir); err != nil {
		return err
	}
	if err := os.Mkdir(unfinished.dir, 0o700); err != nil {
		return err
	}
	err := parallel(s.count, runtime.NumCPU(), func(i int) error {
		l, err := unfinished.issue(i)
		if err != nil {
			return err
		}
		if s.certbot {
			return unfinished.putLineage(l)
		}
		return os.WriteFile(unfinished.file(l.name), slices.Concat(l.fullchain(), l.key), 0o600)
	})
	if err != nil {
		return err
	}
	return os.Rename(unfinished.dir, s.dir)
}

// served is the directory that a server is told of.
func (s *set) served() string {
	if s.certbot {
		return filepath.Join(s.dir, "live")
	}
	return s.dir
}

func (s *set) nameOf(i int) string { return fmt.Sprintf("mail.d%06d.example", i+1) }

// file is where a combined file lies.
func (s *set) file(name string) string { return filepath.Join(s.dir, name+".pem") }

// renewed is what takes a certificate's place.
type renewed struct {
	name              string
	cert              *x509.Certificate
	leaf, issuer, key []byte // PEM
}

func (r renewed) fullchain() []byte { return slices.Concat(r.leaf, r.issuer) }

func (s *set) issue(i int) (renewed, error) {
	r := renewed{name: s.nameOf(i), issuer: encode(s.ca.intermediate)}
	key, err := s.keyFor(i)
	if err != nil {
		return r, err
	}
	if r.key, err = encodeKey(key); err != nil {
		return r, err
	}
	if r.cert, err = s.ca.issue(r.name, key.Public()); err != nil {
		return r, err
	}
	r.leaf = encode(r.cert)
	return r, nil
}

func (s *set) keyFor(i int) (crypto.Signer, error) {
	if s.rsa {
		return s.keys[i%len(s.keys)], nil
	}
	return newECDSA()
}

// put replaces a certificate as renewals do: a combined file by a rename, certbot's by other symlinks.
func (s *set) put(r renewed) error {
	if s.certbot {
		return s.putLineage(r)
	}
	beside := s.dir + ".renewed"
	if err := os.WriteFile(beside, slices.Concat(r.fullchain(), r.key), 0o600); err != nil {
		return err
	}
	return os.Rename(beside, s.file(r.name))
}

// putLineage writes the four files of certbot's next generation, and has the symlinks lead there.
func (s *set) putLineage(r renewed) error {
	live, archive := filepath.Join(s.dir, "live", r.name), filepath.Join(s.dir, "archive", r.name)
	for _, dir := range []string{live, archive} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	next := generation(filepath.Join(live, "cert.pem")) + 1
	parts := map[string][]byte{"cert": r.leaf, "chain": r.issuer, "fullchain": r.fullchain(), "privkey": r.key}
	for part, data := range parts {
		if err := os.WriteFile(filepath.Join(archive, fmt.Sprintf("%s%d.pem", part, next)), data, 0o600); err != nil {
			return err
		}
	}
	for part := range parts {
		link := filepath.Join(live, part+".pem")
		target := filepath.Join("..", "..", "archive", r.name, fmt.Sprintf("%s%d.pem", part, next))
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	return nil
}

// generation is the number at the end of what a certbot's symlink leads to, or 0 where there is none.
func generation(link string) int {
	target, err := os.Readlink(link)
	if err != nil {
		return 0
	}
	number := strings.TrimPrefix(strings.TrimSuffix(filepath.Base(target), ".pem"), "cert")
	n, _ := strconv.Atoi(number)
	return n
}

// parallel does something n times, by so many workers. It returns the first error.
func parallel(n, workers int, do func(i int) error) error {
	var next atomic.Int64
	var running sync.WaitGroup
	failures := make(chan error, workers)
	for range workers {
		running.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	running.Wait()
	select {
	case err := <-failures:
		return err
	default:
		return nil
	}
}
