package orders

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"jackdaw/internal/whole"
)

// cache is the directory with all that outlives us, which other frontends may share:
//
//	account.key             the key by which the authority knows us
//	certificates/NAME.pem   chain and key, for the certificate store
//	challenges/TOKEN        what http-01 is answered; NAME.pem: the certificate that tls-alpn-01 is shown
//	failures/NAME.json      why the last order for a name has failed, and when to try again
//	lease                   who orders at the moment
//
// Directories are 0700 and files 0600. A file comes to its name by a rename, complete, so that any frontend can read it at
// any time. Methods are safe for concurrent use.
type cache struct {
	dir string

	// What could not be written, so that a full disk lets nobody hammer the authority.
	mu      sync.Mutex
	unsaved map[string]failure
	issued  map[string][]byte // certificates
}

func newCache(dir string) *cache {
	return &cache{dir: dir, unsaved: make(map[string]failure), issued: make(map[string][]byte)}
}

const (
	certificates = "certificates"
	challenges   = "challenges"
	failures     = "failures"
)

func (c *cache) path(parts ...string) string { return filepath.Join(c.dir, filepath.Join(parts...)) }

// write replaces a file.
func (c *cache) write(data []byte, parts ...string) error {
	return place(c.path(parts...), data, os.Rename)
}

// place has put bring a file to its path when it is complete: os.Rename, or os.Link, which overwrites nothing. The certificate store
// passes over it until then.
func place(path string, data []byte, put func(from, to string) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return whole.File(path, put, func(f io.Writer) error {
		_, err := f.Write(data)
		return err
	})
}

// remove removes a file, if it is there.
func (c *cache) remove(parts ...string) error {
	if err := os.Remove(c.path(parts...)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// certificate reads what was ordered for a name; nil if nothing was.
func (c *cache) certificate(name string) (*x509.Certificate, error) {
	path := c.path(certificates, name+".pem")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	leaf, err := parsePair(data, name)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return leaf, nil
}

// setCertificate lays down what was ordered for a name. What cannot be written is kept until recall.
func (c *cache) setCertificate(name string, data []byte) error {
	err := c.write(data, certificates, name+".pem")
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.issued[name] = data
		return fmt.Errorf("storing the certificate: %w", err)
	}
	return nil
}

// recall gives back what setCertificate could not write, once; nil if there is nothing that is still worth it.
func (c *cache) recall(name string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	data := c.issued[name]
	delete(c.issued, name)
	if leaf, err := parsePair(data, name); err != nil || time.Now().After(renewal(leaf)) {
		return nil
	}
	return data
}

// parsePair returns the certificate in a PEM file, if it is for this name and has its key beside it.
func parsePair(data []byte, name string) (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, err
	}
	return pair.Leaf, pair.Leaf.VerifyHostname(name)
}

// failure is what is remembered of orders that have failed since the last one that has not.
type failure struct {
	Count int       `json:"count"`
	Last  time.Time `json:"last"`
	Next  time.Time `json:"next"` // before that nobody tries again
	Error string    `json:"error"`
}

// failure reads the failures of a name; the zero failure if there are none.
func (c *cache) failure(name string) (f failure, err error) {
	c.mu.Lock()
	f, ok := c.unsaved[name]
	c.mu.Unlock()
	if ok {
		return f, nil
	}
	path := c.path(failures, name+".json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err != nil {
		return failure{}, fmt.Errorf("reading %s: %w", path, err)
	}
	return f, nil
}

// setFailure remembers a failure, on disk if that can be.
func (c *cache) setFailure(name string, f failure) error {
	data, err := json.Marshal(f)
	if err == nil {
		err = c.write(append(data, '\n'), failures, name+".json")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.unsaved, name)
	if err != nil {
		c.unsaved[name] = f
	}
	return err
}

func (c *cache) clearFailure(name string) error {
	c.mu.Lock()
	delete(c.unsaved, name)
	c.mu.Unlock()
	return c.remove(failures, name+".json")
}

// names lists the names with a certificate or a failure, each once or twice.
func (c *cache) names() ([]string, error) {
	var names []string
	for _, kind := range []struct{ dir, ending string }{{certificates, ".pem"}, {failures, ".json"}} {
		entries, err := os.ReadDir(c.path(kind.dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			name, ok := strings.CutSuffix(e.Name(), kind.ending)
			if lower, isName := dnsName(name); ok && isName && lower == name {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// clearChallenges removes the challenges of one who has died. Who has the lease is the only one who can have any.
func (c *cache) clearChallenges() error {
	entries, err := os.ReadDir(c.path(challenges))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if err := c.remove(challenges, e.Name()); err != nil {
			return err
		}
	}
	return nil
}
