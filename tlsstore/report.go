package tlsstore

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Certificate describes a certificate that is complete with its private key.
type Certificate struct {
	Names     []string  `json:"names"`
	Source    Source    `json:"source"`
	ChainFile string    `json:"chain_file"`
	KeyFile   string    `json:"key_file"`
	Copies    []string  `json:"copies,omitempty"` // other files with the same certificate
	KeyType   string    `json:"key_type"`         // such as "ECDSA P-256"
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	// Serving says whether some client can be shown the certificate.
	Serving bool `json:"serving"`
	// Reason says why it does not serve, or why it serves although its files no longer hold it.
	Reason string `json:"reason,omitempty"`
	// Problems are those of the certificate itself: expired, weak, without its intermediate.
	Problems []string `json:"problems,omitempty"`
}

// Source is where a certificate comes from.
type Source string

// The sources.
const (
	FromFile Source = "file"
	FromACME Source = "acme"
)

// Problem is something that an operator should put right. It keeps nothing else from being served.
type Problem struct {
	File string `json:"file,omitempty"` // or directory; "" where it is not about one
	Text string `json:"text"`
}

func (p Problem) String() string {
	if p.File == "" {
		return p.Text
	}
	return p.File + ": " + p.Text
}

// Certificates lists all certificates, sorted by name.
func (s *Store) Certificates() []Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	list := make([]Certificate, 0, s.index.size())
	for _, p := range s.registry.pairs {
		if p.listed {
			list = append(list, s.registry.report(p, now))
		}
	}
	slices.SortFunc(list, func(a, b Certificate) int {
		return cmp.Or(slices.Compare(a.Names, b.Names), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.ChainFile, b.ChainFile))
	})
	return list
}

// Problems lists what is wrong, sorted by file.
func (s *Store) Problems() []Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Collect(maps.Values(s.registry.found))
	slices.SortFunc(list, compareProblems)
	return list
}

// PassedOver lists the files in which nothing matters, and why, sorted by file.
func (s *Store) PassedOver() (list []Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tree.all(func(f *file) {
		if f.passed != matters {
			list = append(list, Problem{f.path(), f.passed.String()})
		}
	})
	slices.SortFunc(list, compareProblems)
	return list
}

func compareProblems(a, b Problem) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Text, b.Text))
}

func (r *registry) report(p *pair, now time.Time) Certificate {
	by := r.index.superseded(p, now)
	c := Certificate{
		Names:     p.names,
		Source:    FromFile,
		ChainFile: p.chain.path(),
		KeyFile:   p.key.path(),
		Copies:    copies(p),
		KeyType:   p.kind.keyType,
		Issuer:    p.kind.issuer,
		NotBefore: p.notBefore(),
		NotAfter:  p.notAfter(),
		Serving:   len(p.names) > 0 && by == nil,
		Problems:  r.defects(p, now),
	}
	if p.acme() {
		c.Source = FromACME
	}
	switch {
	case len(p.names) == 0:
		c.Reason = "no DNS name"
	case by != nil:
		c.Reason = "superseded by " + by.chain.path()
	case p.kept != nil:
		c.Reason = p.kept.why
	}
	return c
}

// copies are the other files with the certificate, but not those that are the same by another name.
func copies(p *pair) (paths []string) {
	seen := []uint64{p.chain.print}
	for _, s := range p.sources {
		if s.file != p.chain && !slices.Contains(seen, s.file.print) {
			seen = append(seen, s.file.print)
			paths = append(paths, s.file.path())
		}
	}
	slices.Sort(paths)
	return paths
}

// describeNames keeps a certificate with a hundred names from filling the log.
func describeNames(names []string) string {
	const most = 3
	switch {
	case len(names) == 0:
		return "no name"
	case len(names) <= most:
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
