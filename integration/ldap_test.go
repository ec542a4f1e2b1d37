package integration

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"jackdaw/backends/directories"
	"jackdaw/configs"
)

// config is a directory that asks these servers.
func (s *openldap) config(urls ...string) configs.Directory {
	return configs.Directory{
		Kind: configs.DirectoryLDAP, URLs: urls, TLSCA: s.file("ca.pem"), Base: "ou=people,dc=a,dc=example",
		BindDN: "cn=jackdaw,dc=a,dc=example", BindPassword: proxyPassword, Filter: "(mail=:user)", Backend: "mailHost", User: "uid",
		Services: map[configs.Service]string{configs.IMAP: "imapAllowed", configs.POP3: "popAllowed"}, Timeout: 10 * time.Second,
	}
}

// looked is how a directory answers to a name, and to a password where there is one.
func looked(t testing.TB, d directories.Directory, service configs.Service, user, secret string) string {
	t.Helper()
	answer, err := d.Lookup(t.Context(), attempt(user, secret, service))
	switch {
	case errors.Is(err, directories.ErrNotFound):
		return "unknown"
	case errors.Is(err, directories.ErrDenied):
		return "denied"
	case err != nil:
		return "failed: " + err.Error()
	}
	said := fmt.Sprintf("at %s as %s", answer.Backend, answer.User)
	if answer.Verified {
		said += ", verified"
	}
	if answer.Refuse != "" {
		said += ", refused"
	}
	return said
}

// TestLDAPWays: a real server is asked in each of the ways, and answers the same.
func TestLDAPWays(t *testing.T) {
	t.Parallel()
	s := startOpenLDAP(t)
	for i, way := range append(s.urls(), s.urls()[0]) {
		c := s.config(way)
		c.StartTLS = i == 3
		d := openDirectory(t, c)
		for _, tt := range []struct {
			service      configs.Service
			user, secret string
			want         string
		}{
			{configs.IMAPS, "anna@a.example", "", "at store1 as anna"},
			{configs.IMAPS, "anna@a.example", password, "at store1 as anna, verified"},
			{configs.POP3, "anna@a.example", password, "at store1 as anna, verified, refused"},
			{configs.Sieve, "anna@a.example", password, "at store1 as anna, verified"},
			{configs.POP3, "anna@a.example", "wrong", "denied"},
			{configs.IMAP, "anna@a.example", "Secret", "denied"},
			{configs.IMAP, "anna@a.example", strings.Repeat("long", 1000), "denied"},
			{configs.IMAP, "bob@b.example", password, "at store2 as robert, verified"},
			{configs.POP3, "bob@b.example", "", "at store2 as robert, refused"},
			{configs.Sieve, "nopassword@a.example", "", "at  as nopassword"},
			{configs.Sieve, "nopassword@a.example", password, "denied"},
			{configs.IMAP, "eve@a.example", password, "unknown"},
			{configs.IMAP, "twice@a.example", password, "failed: the filter matches more than one entry"},
		} {
			if got := looked(t, d, tt.service, tt.user, tt.secret); got != tt.want {
				t.Errorf("%s, starttls %t, %s, %s: %q, want %q", way, c.StartTLS, tt.service, tt.user, got, tt.want)
			}
		}
	}
	s.logged(t, "STARTTLS")
	if connections := s.count("ACCEPT from"); connections != 9 { // one of them to see that the server is there
		t.Errorf("%d connections for four directories", connections)
	}
}

// TestLDAPInjection: nobody is found by a name that means more to a filter than itself, and none of it gets lost.
func TestLDAPInjection(t *testing.T) {
	t.Parallel()
	s := startOpenLDAP(t)
	d := openDirectory(t, s.config(s.urls()[0]))
	for _, user := range []string{
		"*", "*@a.example", "an*a@a.example", "anna@a.example)(objectClass=*", "x)(|(mail=*", "anna@a.example\x00",
		"\\61nna@a.example", "anna@a.example*", "(anna@a.example", "anna@a.example)", ":user", "%61nna@a.example", "anna@a.example\r\n", "",
		"ännä@a.example", "anna@a.example\\", "'anna@a.example", `"anna"@a.example`, strings.Repeat("a", 500) + "@a.example",
	} {
		for _, secret := range []string{"", password} {
			if got := looked(t, d, configs.IMAP, user, secret); got != "unknown" {
				t.Errorf("%q: %s", user, got)
			}
		}
	}
	s.logged(t, `filter="(mail=\2A)"`)
	s.logged(t, `filter="(mail=x\29\28|\28mail=\2A)"`)
	if got := looked(t, d, configs.IMAP, "anna@a.example", password); got != "at store1 as anna, verified" {
		t.Errorf("afterwards: %s", got)
	}
}

// TestLDAPConfidence: what keeps us from knowing is a failure, and never a wrong password or nobody.
func TestLDAPConfidence(t *testing.T) {
	t.Parallel()
	s := startOpenLDAP(t)
	for what, change := range map[string]func(*configs.Directory){
		"a wrong password of jackdaw's own":  func(c *configs.Directory) { c.BindPassword = "wrong" },
		"a base that is not there":           func(c *configs.Directory) { c.Base = "ou=nobody,dc=a,dc=example" },
		"a base at another server":           func(c *configs.Directory) { c.Base = "ou=elsewhere,ou=people,dc=a,dc=example" },
		"a certificate of another authority": func(c *configs.Directory) { c.StartTLS, c.TLSCA = true, "" },
		"no server":                          func(c *configs.Directory) { c.URLs = []string{"ldap://" + newHost() + ":1"} },
		"a server that speaks no TLS":        func(c *configs.Directory) { c.URLs = []string{"ldaps://" + s.at(portLDAP)} },
	} {
		c := s.config(s.urls()[0])
		change(&c)
		d := openDirectory(t, c)
		for _, user := range []string{"anna@a.example", "eve@a.example"} {
			got := looked(t, d, configs.IMAP, user, password)
			if !strings.HasPrefix(got, "failed: ") || strings.Contains(got, password) {
				t.Errorf("%s: %s is answered %q", what, user, got)
			}
		}
	}
}

// TestLDAPServerFails: a server that is killed, hangs, or has closed its connections meanwhile costs nobody a login, where another
// one is there or it is back itself.
func TestLDAPServerFails(t *testing.T) {
	t.Parallel()
	first, second := startOpenLDAP(t), startOpenLDAP(t)
	c := first.config(first.urls()[0], second.urls()[0])
	c.TLSCA, c.Timeout = "", 8*time.Second
	both := openDirectory(t, c)
	c.URLs = c.URLs[:1]
	alone := openDirectory(t, c)
	right := func(d directories.Directory) bool {
		return looked(t, d, configs.IMAP, "anna@a.example", password) == "at store1 as anna, verified"
	}
	wrong := func(d directories.Directory) bool {
		return looked(t, d, configs.IMAP, "anna@a.example", "wrong") == "denied"
	}
	fails := func(d directories.Directory) bool {
		return strings.HasPrefix(looked(t, d, configs.IMAP, "anna@a.example", "wrong"), "failed: ")
	}
	want := func(what string, ok bool) {
		t.Helper()
		if !ok {
			t.Error("not so: " + what)
		}
	}
	want("both answer", right(both) && wrong(both) && right(alone) && wrong(alone))

	first.kill()
	want("the second takes over from one that is dead", right(both) && wrong(both))
	want("one that is dead alone is a failure", fails(alone))
	first.restart()
	want("one that is back answers at once", right(alone) && wrong(alone))

	before := second.count("BIND")
	resume := first.hang(t)
	want("one that hangs alone is a failure", fails(alone))
	want("the second takes over from one that hangs", right(both) && wrong(both))
	want("it was the second", second.count("BIND") > before)
	resume()
	want("one that goes on answers", right(alone) && wrong(alone))

	_ = first.stop()
	first.restart() // all connections that were kept are dead
	want("new connections take the place of dead ones", right(alone) && wrong(alone) && right(both) && wrong(both))
}
