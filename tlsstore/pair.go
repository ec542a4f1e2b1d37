package tlsstore

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// pair is a certificate that a server can show, and what is known of its chain and its private key. There is one for each
// certificate, however many files hold it; handshakes may have it at hand for as long as they like.
type pair struct {
	id          digest // of the leaf
	names       []string
	from, until int64 // validity, in seconds since 1970
	kind        *kind
	lone        bool // no file has its issuer, and it is not its own
	public      bool // its issuer is a public authority, as it says where clients find its certificate

	// chain and key are the files that it is read from. They change under the index's mutex.
	chain, key *file

	bookkeeping
	cached
}

// bookkeeping is what the registry alone looks at.
type bookkeeping struct {
	ring     *keyring
	keyAt    *file    // whose user it is
	sources  []source // all files that have the leaf, the best first
	complete bool     // a chain and a key are there
	sure     bool     // and the key was seen to be the certificate's
	listed   bool     // the index has the pair
	waiting  bool     // for a private key
	kept     *kept    // nil unless it serves although its files no longer hold it
	trouble  string   // why it could not be loaded
}

// cached is what handshakes share.
type cached struct {
	loading sync.Mutex // one reads the files, the others wait
	loaded  atomic.Pointer[tls.Certificate]
	used    atomic.Bool // since the cache looked last
	pinned  atomic.Bool // what is loaded cannot be loaded again
}

// source is a file that has a pair's certificate, and how many certificates of its chain are there, too.
type source struct {
	file  *file
	depth int
}

// kept says why a pair serves on, and since when all of its files have been missing, if they are.
type kept struct {
	why  string
	gone time.Time
}

// keyring brings the certificates with a public key and the files with its private key together. There may be a hundred
// thousand of both: a hoster may have but one key.
type keyring struct {
	id      digest
	pairs   []*pair
	waiting []*pair // those that have found no file
	listed  int     // how many the index has
	files   []*file
}

// pair makes a pair of a chain.
func (p *parser) pair(c chain) *pair {
	return &pair{
		id:          c.id,
		names:       certificateNames(c.leaf),
		from:        c.leaf.NotBefore.Unix(),
		until:       c.leaf.NotAfter.Unix(),
		kind:        p.kinds.of(c.leaf),
		lone:        isLone(c),
		public:      len(c.leaf.IssuingCertificateURL) > 0,
		bookkeeping: bookkeeping{ring: &keyring{id: c.key}},
	}
}

func isLone(c chain) bool { return len(c.der) == 1 && !selfIssued(c.leaf) }

// valid reports whether clients accept the certificate at that time.
func (p *pair) valid(now time.Time) bool { return p.from <= now.Unix() && now.Unix() <= p.until }

func (p *pair) notBefore() time.Time { return time.Unix(p.from, 0).UTC() }

func (p *pair) notAfter() time.Time { return time.Unix(p.until, 0).UTC() }

// acme reports whether no file of the operator's has the certificate.
func (p *pair) acme() bool { return p.chain.dir.acme }

// add notes a file that has the certificate. Where several have it, the longest chain is the one to serve: certbot's
// fullchain.pem and not its cert.pem. Among equals an operator's file comes first, then the one whose name does.
func (p *pair) add(f *file, depth int) {
	s := source{f, depth}
	i, _ := slices.BinarySearchFunc(p.sources, s, func(a, b source) int {
		return cmp.Or(
			cmp.Compare(b.depth, a.depth),
			boolean(a.file.dir.acme)-boolean(b.file.dir.acme),
			strings.Compare(a.file.path(), b.file.path()),
		)
	})
	p.sources = slices.Insert(p.sources, i, s)
}

func (p *pair) drop(f *file) {
	p.sources = slices.DeleteFunc(p.sources, func(s source) bool { return s.file == f })
}

// prefer orders the pairs for one name: those of the operator's files before those of ACME; ECDSA before RSA, because signing
// is cheaper; then the latest.
func prefer(a, b *pair) int {
	return cmp.Or(
		boolean(a.acme())-boolean(b.acme()),
		cmp.Compare(a.kind.rank, b.kind.rank),
		cmp.Compare(b.until, a.until),
		cmp.Compare(b.from, a.from),
		strings.Compare(a.chain.path(), b.chain.path()),
	)
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}

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

func rank(public crypto.PublicKey) int {
	switch public.(type) {
	case *ecdsa.PublicKey:
		return 0
	case ed25519.PublicKey:
		return 1
	}
	return 2
}

// weakness says why clients may refuse the certificate, or soon will (RFC 9325 section 4.5).
func weakness(c *x509.Certificate) string {
	if public, ok := c.PublicKey.(*rsa.PublicKey); ok && public.N.BitLen() < 2048 {
		return fmt.Sprintf("an RSA key of %d bits is too short: 2048 are asked for", public.N.BitLen())
	}
	switch c.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return "it is signed with " + c.SignatureAlgorithm.String() + ", which clients refuse"
	}
	return ""
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
