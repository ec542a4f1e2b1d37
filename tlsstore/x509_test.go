package tlsstore

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

// The names in a certificate mean what package x509 takes them for, as clients do. A host that is not in the form of a DNS
// name matches nothing here, though x509 is kinder there:
//
//   - a dot at the end, which RFC 6066 section 3 forbids in SNI;
//   - an IP address, which the same section forbids, even if it is among the certificate's;
//   - what says in so many words what the certificate says, and is no name, such as "-a.example", "a..example" or "*.example";
//   - labels of more than 63 octets and names of more than 253 (RFC 1035 section 2.3.4).
var dnsForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*$`)

func isDNSName(host string) bool {
	return len(host) <= 253 && dnsForm.MatchString(host) && net.ParseIP(host) == nil
}

// certified is a store with several certificates, of which it must serve each host one that x509 accepts for it.
type certified struct {
	*testing.T
	*Store
	leaves []devca.Leaf
}

// certify makes a certificate of each set of names. A set of which none can be made is left out.
func certify(t *testing.T, sets ...[]string) certified {
	t.Helper()
	ca, err := testCA()
	must(t, err)
	c, dir := certified{T: t}, t.TempDir()
	for i, names := range sets {
		leaf, err := ca.Issue(devca.Options{Names: names})
		if err != nil {
			continue
		}
		must(t, leaf.Write(dir, fmt.Sprint(i)))
		c.leaves = append(c.leaves, leaf)
	}
	c.Store = open(Options{TLS: configs.TLS{Certificates: []string{dir}}, Tickets: NewTickets(), Log: zap.NewNop()}, quick)
	t.Cleanup(c.Close)
	return c
}

// agree fails unless Match, Explain and a listener agree with x509 about a host.
func (c certified) agree(host string) {
	c.Helper()
	accepts := func(l devca.Leaf) bool { return l.TLS.Leaf.VerifyHostname(host) == nil }
	want := isDNSName(host) && slices.ContainsFunc(c.leaves, accepts)
	name, ok := c.Match(host)
	if ok != want || ok && name != strings.ToLower(host) || !ok && name != "" {
		c.Errorf("%q is matched as %q, %v; want %v", host, name, ok, want)
	}
	hello := &tls.ClientHelloInfo{
		ServerName:        host,
		SupportedVersions: []uint16{tls.VersionTLS13},
		SignatureSchemes:  []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
	}
	shown, err := c.Config(ListenerTLS{}).GetCertificate(hello)
	if err != nil || (shown != nil) != want {
		c.Errorf("%q is shown %v, %v; want a certificate: %v", host, shown, err, want)
	} else if shown != nil && !slices.ContainsFunc(c.leaves, func(l devca.Leaf) bool {
		return accepts(l) && bytes.Equal(l.TLS.Certificate[0], shown.Certificate[0])
	}) {
		c.Errorf("%q is shown the certificate of another name", host)
	}
	if !isDNSName(host) {
		return // Explain takes what operators write, such as "bücher.example"
	}
	explained := c.Explain(host, ListenerTLS{})
	if (explained.How == Exact || explained.How == Wildcard) != want || (explained.How == Exact) != (want && c.named(host)) {
		c.Errorf("%q is explained as %s; want a certificate: %v", host, explained.How, want)
	}
	for _, candidate := range explained.Certificates {
		written := func(l devca.Leaf) bool {
			return accepts(l) && slices.Equal(candidate.Names, certificateNames(l.TLS.Leaf))
		}
		if !slices.ContainsFunc(c.leaves, written) {
			c.Errorf("a candidate for %q is that of %q in %s", host, candidate.Names, filepath.Base(candidate.ChainFile))
		}
	}
}

// named reports whether a certificate has the very name.
func (c certified) named(host string) bool {
	return slices.ContainsFunc(c.leaves, func(l devca.Leaf) bool {
		return slices.ContainsFunc(l.TLS.Leaf.DNSNames, func(name string) bool { return strings.EqualFold(name, host) })
	})
}

var someLabels = []string{
	"a", "b", "A", "B", "mail", "xn--bcher-kva", "XN--Bcher-kva", "under_score", "_dmarc", "a-", "-a", "a--b", "7", "192",
	"0", "2", "1", "*", "a*", "", "ü", "a b", strings.Repeat("x", 63), strings.Repeat("y", 64),
}

// randomName makes names that often meet, mostly of ordinary labels.
func randomName(random *rand.Rand, wildcard bool) string {
	labels := make([]string, 1+random.IntN(4))
	for i := range labels {
		of := someLabels
		if random.IntN(8) > 0 {
			of = someLabels[:4]
		}
		labels[i] = of[random.IntN(len(of))]
	}
	if wildcard {
		labels[0] = "*"
	}
	name := strings.Join(labels, ".")
	if random.IntN(20) == 0 {
		name += "."
	}
	return name
}

// ascii tells whether certificates can be made of names.
func ascii(names string) bool {
	return !strings.ContainsFunc(names, func(r rune) bool { return r < ' ' || r > '~' })
}

func TestRandomNamesAgreeWithX509(t *testing.T) {
	random := rand.New(rand.NewPCG(6066, 9525))
	served := 0
	for range 60 {
		var sets [][]string
		var hosts []string
		for range 1 + random.IntN(3) {
			var names []string
			for range random.IntN(4) {
				names = append(names, randomName(random, random.IntN(3) == 0))
			}
			names = slices.DeleteFunc(names, func(name string) bool { return !ascii(name) })
			sets, hosts = append(sets, names), append(hosts, names...)
		}
		c := certify(t, sets...)
		for range 80 {
			hosts = append(hosts, randomName(random, false))
		}
		for _, host := range hosts {
			c.agree(host)
			if _, ok := c.Match(host); ok {
				served++
			}
		}
		if t.Failed() {
			t.Fatalf("certificates of %q", sets)
		}
		c.Close()
	}
	if served < 500 {
		t.Errorf("only %d hosts were served: the names hardly meet", served)
	}
}

// What x509 accepts is what clients get in a handshake, and nothing else.
func TestHandshakesAgreeWithX509(t *testing.T) {
	sets := [][]string{
		{"example.net", "*.example.net", "under_score.example.org"},
		{"Mail.Example.Net", "xn--bcher-kva.example"},
		{"*.b.example.net"},
	}
	c := certify(t, sets...)
	for _, host := range []string{
		"example.net", "EXAMPLE.NET", "mail.example.net", "imap.example.net", "a.imap.example.net", "b.example.net", "a.b.example.net",
		"XN--BCHER-KVA.example", "under_score.example.org", "a_b.example.net", "example.org", "net", "other.example",
	} {
		c.agree(host)
		for _, version := range versions {
			config := client(host)
			config.MaxVersion = version
			state, err := handshake(c.Config(ListenerTLS{}), config)
			want := slices.ContainsFunc(c.leaves, func(l devca.Leaf) bool { return l.TLS.Leaf.VerifyHostname(host) == nil })
			if (err == nil) != want || want && state.PeerCertificates[0].VerifyHostname(host) != nil {
				t.Errorf("%q, %s: %v; want a certificate: %v", host, tls.VersionName(version), err, want)
			}
		}
	}
}

// FuzzMatch has a certificate for the names, which have blanks between them, and asks for the host.
func FuzzMatch(f *testing.F) {
	for _, subject := range subjects {
		f.Add(subject, "foo.example.net")
	}
	for _, host := range []string{"a.b.example.net", "*.example.net", "mail.example.net.", "[::1]", "_.example.net", ".example.net"} {
		f.Add(strings.Join(subjects, " "), host)
	}
	f.Fuzz(func(t *testing.T, names, host string) {
		if len(names) > 500 || !ascii(names) {
			t.Skip()
		}
		certify(t, strings.Fields(names)).agree(host)
	})
}
