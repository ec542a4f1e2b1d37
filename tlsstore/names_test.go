package tlsstore

import (
	"strings"
	"testing"

	"jackdaw/internal/devca"
)

var subjects = []string{
	"example.net", "mail.example.net", "*.example.net", "*.b.example.net", "MAIL.Example.ORG", "*.Example.ORG",
	"xn--bcher-kva.example", "*.example", "single", "under_score.example.net", "-.example.net", "a-.example.net",
	"f*.example.com", "*.*.example.com", "*", "192.0.2.1", "*.0.2.1", "a..example.com",
}

// Package x509 is what clients go by, so that Match has to agree with it on every DNS name.
func TestMatchAgreesWithX509(t *testing.T) {
	asked := []string{
		"example.net", "EXAMPLE.net", "mail.example.net", "imap.example.net", "a.b.example.net", "b.example.net",
		"a.a.b.example.net", "mail.example.org", "Other.EXAMPLE.org", "example.org", "xn--bcher-kva.example",
		"foo.example", "example", "single", "other", "under_score.example.net", "_a.example.net", "a-.example.net",
		"f.example.com", "foo.example.com", "a.b.example.com", "a.0.2.1",
	}
	for _, subject := range subjects {
		leaf := leafFor(t, subject)
		f := newFixture(t, pemFiles("pair", leaf))
		for _, name := range asked {
			want := leaf.TLS.Leaf.VerifyHostname(name) == nil
			got, ok := f.Match(name)
			if ok != want {
				t.Errorf("a certificate for %q matches %q: %v, want %v", subject, name, ok, want)
			}
			if ok && got != strings.ToLower(name) {
				t.Errorf("%q is called %q", name, got)
			}
		}
	}
}

// What is no DNS name matches nothing, not even a certificate that says the same.
func TestMatchRefusesOtherThanDNSNames(t *testing.T) {
	f := newFixture(t, pemFiles("pair", leafFor(t, subjects...)))
	for _, name := range []string{
		"", ".", ".example.net", "mail.example.net.", "a..example.com", "-.example.net", "*.example.net", "*",
		"192.0.2.1", "1.0.2.1", "::1", "[::1]", "bücher.example", "\u212A.example.net",
		"a/b.example.net", "a\x00.example.net", "a b.example.net", "a\n.example.net",
		strings.Repeat("a.", 121) + "example.net",
	} {
		if got, ok := f.Match(name); ok || got != "" {
			t.Errorf("%q is called %q", name, got)
		}
	}
}

func TestMatchBoundsLabels(t *testing.T) {
	f := newFixture(t, pemFiles("pair", leafFor(t, "*.example.net")))
	for length, want := range map[int]bool{63: true, 64: false, 5000: false} {
		if _, ok := f.Match(strings.Repeat("a", length) + ".example.net"); ok != want {
			t.Errorf("a label of %d octets: %v, want %v", length, ok, want)
		}
	}
}

func TestOperatorsNamesAreConverted(t *testing.T) {
	leaf := issue(t, devca.Options{Names: []string{"xn--bcher-kva.example"}})
	f := newFixture(t, pemFiles("pair", leaf))
	for _, name := range []string{"bücher.example", "BÜCHER.example", "XN--BCHER-KVA.example"} {
		if c := f.Explain("", ListenerTLS{Default: pointer(name)}); c.How != Default || c.Default != "xn--bcher-kva.example" {
			t.Errorf("the default %s: %+v", name, c)
		}
		if c := f.Explain(name, ListenerTLS{}); c.How != Exact || c.Name != "xn--bcher-kva.example" {
			t.Errorf("explaining %s: %+v", name, c)
		}
	}
}
