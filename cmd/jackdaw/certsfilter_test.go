package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"jackdaw/tlsstore"
)

func TestCertsFilter(t *testing.T) {
	now := time.Now()
	days := func(n int) time.Time { return now.AddDate(0, 0, n) }
	mail := tlsstore.Certificate{Names: []string{"mail.example", "www.example"}, NotAfter: days(10), Serving: true}
	wild := tlsstore.Certificate{Names: []string{"*.example"}, NotAfter: days(90), Serving: true}
	gone := tlsstore.Certificate{Names: []string{"old.example"}, NotAfter: days(-1), Serving: true}
	spare := tlsstore.Certificate{Names: []string{"mail.example"}, NotAfter: days(1), Reason: "superseded by another"}
	nameless := tlsstore.Certificate{NotAfter: days(90), Problems: []string{"no name"}}
	kept := tlsstore.Certificate{Names: []string{"kept.example"}, NotAfter: days(90), Serving: true, Reason: "its successor is broken"}
	all := []tlsstore.Certificate{mail, wild, gone, spare, nameless, kept}
	for _, tt := range []struct {
		about  string
		filter certsFilter
		want   []tlsstore.Certificate
	}{
		{"everything", certsFilter{}, all},
		{"a name", certsFilter{Name: "www.example"}, []tlsstore.Certificate{mail, wild}},
		{"in capitals", certsFilter{Name: "WWW.Example"}, []tlsstore.Certificate{mail, wild}},
		{"two labels below the wildcard", certsFilter{Name: "a.b.example"}, nil},
		{"a pattern", certsFilter{Name: "*mail*"}, []tlsstore.Certificate{mail, spare}},
		{"a wildcard's own name", certsFilter{Name: "*.example"}, []tlsstore.Certificate{mail, wild, gone, spare, kept}},
		{"problems", certsFilter{Problems: true}, []tlsstore.Certificate{nameless, kept}},
		{"all at once", certsFilter{Name: "*", Expiring: span(time.Hour), Problems: true}, nil},
		{"soon", certsFilter{Expiring: span(14 * 24 * time.Hour)}, []tlsstore.Certificate{mail, gone}},
		{"a name, soon", certsFilter{Name: "mail.example", Expiring: span(14 * 24 * time.Hour)}, []tlsstore.Certificate{mail}},
	} {
		t.Run(tt.about, func(t *testing.T) {
			again, err := parseFilter(tt.filter.query()) // as the daemon gets it
			if again != tt.filter || err != nil {
				t.Errorf("the daemon reads %+v, %v", again, err)
			}
			wanted := tt.filter.wanted(now)
			var got []tlsstore.Certificate
			for _, c := range all {
				if wanted(c) {
					got = append(got, c)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"14d": 14 * 24 * time.Hour, "1d": 24 * time.Hour, "36500d": 36500 * 24 * time.Hour,
		"36h": 36 * time.Hour, "1h30m": 90 * time.Minute,
		"": 0, "d": 0, "0d": 0, "-1d": 0, "1.5d": 0, "36501d": 0, "99999999999d": 0,
		"14": 0, "0s": 0, "-1h": 0, "1d12h": 0, "soon": 0,
	} {
		var got span
		if err := got.Set(text); time.Duration(got) != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %v, %v; want %v", text, time.Duration(got), err, want)
		}
	}
}

// What a certificate says of its issuer, and its names, are as short as people want them.
func TestCertificateInWords(t *testing.T) {
	for issuer, want := range map[string]string{
		"CN=R11,O=Let's Encrypt,C=US":                   "R11",
		"C=US,O=Let's Encrypt,CN=R11":                   "R11",
		`OU=a\, b,CN=Sectigo RSA DV\, Secure,O=Sectigo`: "Sectigo RSA DV, Secure",
		"OU=one+CN=two,O=three":                         "two",
		"O=of ours":                                     "O=of ours",
		"":                                              "",
	} {
		if got := commonName(issuer); got != want {
			t.Errorf("%q is called %q, want %q", issuer, got, want)
		}
	}
	long := "a-name-that-takes-much-of-the-line-all-by-itself.example"
	for want, names := range map[string][]string{
		"-":                  nil,
		"a.example":          {"a.example"},
		long:                 {long},
		long + " and 1 more": {long, "b.example"},
		"a.example, b.example, c.example, d.examp":   {"a.example", "b.example", "c.example", "d.examp"},
		"a.example, b.example, c.example and 1 more": {"a.example", "b.example", "c.example", "d.exampl"},
		"a.example, b.example, c.example and 2 more": {"a.example", "b.example", "c.example", "de.example", "e.example"},
	} {
		if got := shorten(names); got != want {
			t.Errorf("%q is shortened to %q, want %q", names, got, want)
		}
	}
}
