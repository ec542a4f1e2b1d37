package directories

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"jackdaw/configs"
)

// Whatever a server says in the place of an answer, nobody is let in, unknown, or wrong.
func TestLDAPNonsense(t *testing.T) {
	for what, answer := range map[string]func(ldapRequest) []byte{
		"an end":           func(ldapRequest) []byte { return nil },
		"half an answer":   func(r ldapRequest) []byte { return r.result(0)[:5] },
		"text":             func(ldapRequest) []byte { return []byte("220 ready\r\n") },
		"zeros":            func(ldapRequest) []byte { return make([]byte, 100) },
		"another's answer": func(r ldapRequest) []byte { r.id += 7; return r.result(0) },
		"notice of an end": func(r ldapRequest) []byte { r.id, r.op = 0, ldap.ApplicationExtendedRequest; return r.result(52) },
		"an empty message": func(ldapRequest) []byte { return ber.NewSequence("").Bytes() },
		"no result": func(r ldapRequest) []byte {
			return r.message(ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationBindResponse, nil, ""))
		},
		"an answer without end": func(r ldapRequest) []byte { return append(r.entry("a", "uid", "b"), 0x30) },
	} {
		for _, nonsenseTo := range []string{"bind cn=jackdaw", "search (mail=anna@a.example)", "bind " + annaDN} {
			s := startFakeLDAP(t, func(r ldapRequest) []byte {
				if r.String() == nonsenseTo {
					return answer(r)
				}
				return found(r)
			})
			if got := outcome(openLDAP(t, 100*time.Millisecond, s).Lookup(t.Context(), verifyWrong)); got != "temporary" {
				t.Errorf("%s in answer to %s: %s", what, nonsenseTo, got)
			}
		}
	}
}

// What a server sends has its limits: it is not waited for the rest.
func TestLDAPLimits(t *testing.T) {
	for want, answer := range map[string]func(ldapRequest) []byte{
		errAmbiguous.Error():   func(r ldapRequest) []byte { return slices.Repeat(r.entry("a"), 3) },
		"greater than maximum": func(ldapRequest) []byte { return []byte{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x02, 0x01, 0x02} },
	} {
		s := startFakeLDAP(t, func(r ldapRequest) []byte {
			if r.op == ldap.ApplicationSearchRequest {
				return answer(r)
			}
			return found(r)
		})
		if _, err := openLDAP(t, 10*time.Second, s).Lookup(t.Context(), asked); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// Connections are used again, each for its purpose, and left in the way that the protocol has for it.
func TestLDAPConnections(t *testing.T) {
	s := startFakeLDAP(t, found)
	d := openLDAP(t, 10*time.Second, s)
	for range 3 {
		for _, q := range []Query{verify, verifyWrong} {
			_, _ = d.Lookup(t.Context(), q)
		}
	}
	if n := s.connections(); n != 2 {
		t.Errorf("%d connections", n)
	}
	want := []string{"bind cn=jackdaw", "search (mail=anna@a.example)", "bind " + annaDN, "search (mail=anna@a.example)", "bind " + annaDN}
	if diff := cmp.Diff(want, s.asked()[:5]); diff != "" {
		t.Error(diff)
	}
	d.Close()
	var asked []string
	for end := time.Now().Add(10 * time.Second); len(asked) < 2 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		asked = append(asked, s.asked()...)
	}
	if diff := cmp.Diff([]string{"unbind", "unbind"}, asked); diff != "" {
		t.Error(diff)
	}
	if _, err := d.Lookup(t.Context(), verify); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A connection that was idle and is dead, with or without a trace, or too old, costs nobody a login.
func TestLDAPIdleConnections(t *testing.T) {
	var mu sync.Mutex
	dead := 0 // connections up to this one get no answer
	release := make(chan struct{})
	s := startFakeLDAP(t, func(r ldapRequest) []byte {
		mu.Lock()
		hangs := r.conn <= dead
		mu.Unlock()
		if hangs {
			<-release
			return nil
		}
		return found(r)
	})
	defer close(release)
	d := openLDAP(t, 4*time.Second, s)
	login := func(what string) {
		t.Helper()
		if got := outcome(d.Lookup(t.Context(), verify)); !strings.Contains(got, "Verified:true") {
			t.Errorf("%s: %s", what, got)
		}
	}
	login("at first")
	s.hangUp()
	login("after the server has closed")
	server := d.(*ldapDirectory).servers[0]
	for range 3 {
		more, err := server.connect(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		server.searching.keep(more)
	}
	mu.Lock()
	dead = s.connections()
	mu.Unlock()
	login("while old connections hang")
	if n := len(server.searching.idle); n != 1 {
		t.Errorf("%d connections are kept, and all but one are dead", n)
	}

	old := ldapIdle
	ldapIdle = 0
	defer func() { ldapIdle = old }()
	before := s.connections()
	login("when connections are old")
	if n := s.connections() - before; n != 2 {
		t.Errorf("%d new connections, want 2", n)
	}
}

// Of several servers one after the other is asked; one that has failed is asked last for a while.
func TestLDAPServersInOrder(t *testing.T) {
	busy := startFakeLDAP(t, func(r ldapRequest) []byte { return r.result(ldap.LDAPResultBusy) })
	second, third := startFakeLDAP(t, found), startFakeLDAP(t, found)
	d := openLDAP(t, 10*time.Second, busy, second, third)
	for i := range 3 {
		if got := outcome(d.Lookup(t.Context(), verifyWrong)); got != "denied, wait 0s" {
			t.Errorf("login %d: %s", i, got)
		}
	}
	if got := busy.asked(); len(got) != 1 {
		t.Errorf("the first is asked %q", got)
	}
	if got := third.asked(); len(got) != 0 {
		t.Errorf("the third is asked %q", got)
	}
	for _, s := range d.(*ldapDirectory).servers {
		s.note(time.Time{}) // as if the while was over
	}
	_, _ = d.Lookup(t.Context(), asked)
	if got := busy.asked(); len(got) != 1 {
		t.Errorf("after a while the first is asked %q", got)
	}
}

// A server that hangs, or cannot be reached, leaves time for the next.
func TestLDAPServerHangs(t *testing.T) {
	release := make(chan struct{})
	hangs := startFakeLDAP(t, func(ldapRequest) []byte { <-release; return nil })
	defer close(release)
	d := openLDAP(t, 4*time.Second, hangs, startFakeLDAP(t, found))
	if got := outcome(d.Lookup(t.Context(), verifyWrong)); got != "denied, wait 0s" {
		t.Errorf("with another server: %s", got)
	}
	alone := openLDAP(t, 100*time.Millisecond, hangs)
	answer, err := alone.Lookup(t.Context(), verifyWrong)
	if outcome(answer, err) != "temporary" || !strings.Contains(err.Error(), hangs.url) {
		t.Errorf("alone: %+v, %v", answer, err)
	}
	ctx, leave := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, leave)
	if _, err := openLDAP(t, 10*time.Second, hangs).Lookup(ctx, verifyWrong); !errors.Is(err, context.Canceled) {
		t.Errorf("when the client goes: %v", err)
	}
}

// Many who log in at once wait for each other, and each gets an answer of his own.
func TestLDAPCrowd(t *testing.T) {
	s := startFakeLDAP(t, func(r ldapRequest) []byte {
		time.Sleep(time.Millisecond)
		switch user, _, _ := strings.Cut(strings.TrimPrefix(r.filter, "(mail="), "@"); {
		case r.op == ldap.ApplicationSearchRequest:
			return append(r.entry("uid="+user, "uid", user), r.result(0)...)
		case r.dn != "cn=jackdaw" && r.dn != "uid="+r.password:
			return r.result(ldap.LDAPResultInvalidCredentials)
		}
		return r.result(0)
	})
	d := openLDAP(t, 30*time.Second, s)
	var crowd sync.WaitGroup
	for i := range 300 {
		crowd.Go(func() {
			user := fmt.Sprintf("u%d", i)
			q := verify.with(func(q *Query) { q.User, q.Secret = user+"@a.example", user })
			want := Answer{User: user, Verified: true}
			if i%3 == 0 {
				q.Secret, want = "u1", Answer{}
			}
			if got, err := d.Lookup(t.Context(), q); got != want || errors.Is(err, ErrDenied) != (i%3 == 0) {
				t.Errorf("%s: %+v, %v", user, got, err)
			}
		})
	}
	crowd.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most > 2*ldapConnections {
		t.Errorf("%d connections at once", s.most)
	}
}

// Where STARTTLS is refused, nothing is said in the clear.
func TestLDAPStartTLSRefused(t *testing.T) {
	s := startFakeLDAP(t, func(r ldapRequest) []byte {
		if r.op == ldap.ApplicationExtendedRequest {
			return r.result(ldap.LDAPResultUnavailable)
		}
		return found(r)
	})
	d, err := Open("people", configs.Directory{
		Kind: configs.DirectoryLDAP, URLs: []string{s.url}, StartTLS: true, Base: "dc=a", BindDN: "cn=jackdaw", BindPassword: "own",
		Filter: "(mail=:user)", Timeout: 10 * time.Second,
	}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := outcome(d.Lookup(t.Context(), verify)); got != "temporary" {
		t.Error(got)
	}
	if diff := cmp.Diff([]string{"extended"}, s.asked()); diff != "" {
		t.Error(diff)
	}
}
