package configs

import (
	"fmt"
	"testing"
)

func TestPolicy(t *testing.T) {
	table := TLS{Policies: []TLSPolicy{
		{SNI: []string{"old.a.example", "*.b.example"}, Services: []Service{IMAPS}},
		{SNI: []string{"*.a.example"}},
	}}
	for name, want := range map[string]int{
		"old.a.example":   0,
		"x.y.b.example":   0,
		"mail.a.example":  1,
		"a.example":       -1,
		"b.example":       -1,
		"old.a.example.x": -1,
		"":                -1,
	} {
		got := table.Policy(name)
		if want < 0 && got != nil || want >= 0 && got != &table.Policies[want] {
			t.Errorf("%q: %+v, want number %d", name, got, want)
		}
		for service, serves := range map[Service]bool{IMAPS: true, Sieve: want != 0} {
			if got.Serves(service) != serves {
				t.Errorf("%q is served for %s: %v, want %v", name, service, !serves, serves)
			}
		}
	}
}

// What only policies ask clients for is asked for all the same.
func TestPolicyAsksClients(t *testing.T) {
	const file = `
		[listen]
		imaps = ":993"
		[tls]
		certificates = "certs"
		client_user = "cn"
		[[tls.policy]]
		sni = "mail.example"
		client_ca = %q
		[[backend]]
		name = "cyrus"
		imap = { address = "127.0.0.1:143", external_login = "same" }`
	for ca, asks := range map[string]bool{"clients.pem": true, "": false} {
		if _, err := Parse("jackdaw.toml", fmt.Appendf(nil, file, ca)); (err == nil) != asks {
			t.Errorf("with client_ca = %q: %v", ca, err)
		}
	}
}
