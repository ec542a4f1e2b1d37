package tlsstore

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Certificate describes a certificate that is complete with its private key.
type Certificate struct {
	Names     []string  `json:"names"`
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
}

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
	x, now := s.index.Load(), time.Now()
	list := make([]Certificate, len(x.pairs))
	for i, p := range x.pairs {
		list[i] = x.report(p, now)
	}
	slices.SortStableFunc(list, func(a, b Certificate) int { return slices.Compare(a.Names, b.Names) })
	return list
}

// Problems lists what is wrong with the files, sorted by file.
func (s *Store) Problems() []Problem {
	list := slices.Clone(s.index.Load().problems)
	slices.SortStableFunc(list, func(a, b Problem) int { return cmp.Compare(a.File, b.File) })
	return list
}

func (x *index) report(p *pair, now time.Time) Certificate {
	leaf, by := p.cert.Leaf, x.superseded(p, now)
	c := Certificate{
		Names:     p.names,
		ChainFile: p.chainFile,
		KeyFile:   p.keyFile,
		Copies:    p.copies,
		KeyType:   p.keyType(),
		Issuer:    leaf.Issuer.String(),
		NotBefore: leaf.NotBefore,
		NotAfter:  leaf.NotAfter,
		Serving:   len(p.names) > 0 && by == nil,
		Reason:    p.kept,
	}
	switch {
	case len(p.names) == 0:
		c.Reason = "no DNS name"
	case by != nil:
		c.Reason = "superseded by " + by.chainFile
	}
	return c
}

// logProblems logs the problems that were not there before, so that each is logged once.
func logProblems(log *zap.Logger, before, after *index) {
	for _, p := range after.problems {
		if !slices.Contains(before.problems, p) {
			log.Warn("certificate problem", zap.String("file", p.File), zap.String("problem", p.Text))
		}
	}
}

// logPairs logs which certificates have come and which have gone.
func logPairs(log *zap.Logger, before, after *index) {
	logMissing(log, "certificate loaded", after.pairs, before.pairs)
	logMissing(log, "certificate dropped", before.pairs, after.pairs)
}

// logMissing logs the pairs that are in list and not in other.
func logMissing(log *zap.Logger, message string, list, other []*pair) {
	known := make(map[digest]bool, len(other))
	for _, p := range other {
		known[p.id] = true
	}
	for _, p := range list {
		if !known[p.id] {
			log.Info(message, zap.Strings("names", p.names), zap.String("file", p.chainFile),
				zap.Time("not_after", p.cert.Leaf.NotAfter))
		}
	}
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
