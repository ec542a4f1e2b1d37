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

const annaDN = "uid=anna,dc=a"

// openLDAP asks servers, without a memory of answers.
func openLDAP(t testing.TB, timeout time.Duration, servers ...*fakeLDAP) Directory {
	t.Helper()
	c := configs.Directory{
		Kind: configs.DirectoryLDAP, Base: "dc=a", BindDN: "cn=jackdaw", BindPassword: "own", Filter: "(mail=:user)",
		Backend: "mailHost", User: "uid", Services: map[configs.Service]string{configs.POP3: "pop"}, Timeout: timeout,
	}
	for _, s := range servers {
		c.URLs = append(c.URLs, s.url)
	}
	d, err := Open("people", c, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// found is the answer of a server that knows anna, and her password.
func found(r ldapRequest) []byte {
	switch {
	case r.op == ldap.ApplicationSearchRequest && r.filter == "(mail=anna@a.example)":
		return append(r.entry(annaDN, "mailHost", "store1"), r.result(0)...)
	case r.op == ldap.ApplicationBindRequest && r.dn == annaDN && r.password != asked.Secret:
		return r.result(ldap.LDAPResultInvalidCredentials)
	}
	return r.result(0)
}

var (
	verify      = asked.with(func(q *Query) { q.Verify = true })
	verifyWrong = asked.with(func(q *Query) { q.Verify, q.Secret = true, "wrong" })
)

// What stands in an entry is the answer, if it can be one.
func TestLDAPEntries(t *testing.T) {
	anna := func(attributes ...string) func(ldapRequest) []byte {
		return func(r ldapRequest) []byte { return append(r.entry(annaDN, attributes...), r.result(0)...) }
	}
	for what, tt := range map[string]struct {
		answer func(r ldapRequest) []byte
		want   string
	}{
		"all":                    {anna("mailHost", "store1", "uid", "änna", "pop", "FALSE"), outcome(Answer{Backend: "store1", User: "änna"}, nil)},
		"names in another case":  {anna("MAILHOST", "store1"), outcome(Answer{Backend: "store1"}, nil)},
		"nothing":                {anna(), outcome(Answer{}, nil)},
		"two stores":             {anna("mailHost", "store1", "mailHost", "store2"), "temporary"},
		"a line end":             {anna("uid", "anna\r\n"), "temporary"},
		"no UTF-8":               {anna("uid", "\xff"), "temporary"},
		"a long name":            {anna("uid", strings.Repeat("a", maxName+1)), "temporary"},
		"nobody":                 {func(r ldapRequest) []byte { return r.result(0) }, "unknown"},
		"nobody here":            {func(r ldapRequest) []byte { return append(r.reference("ldap://127.0.0.1:1"), r.result(0)...) }, "unknown"},
		"two entries":            {func(r ldapRequest) []byte { return slices.Concat(r.entry("a"), r.entry("b"), r.result(0)) }, "temporary"},
		"two entries, and stop":  {func(r ldapRequest) []byte { return slices.Concat(r.entry("a"), r.entry("b"), r.result(4)) }, "temporary"},
		"one entry, and stop":    {func(r ldapRequest) []byte { return slices.Concat(r.entry("a"), r.result(4)) }, "temporary"},
		"entries without end":    {func(r ldapRequest) []byte { return slices.Repeat(r.entry("a"), 1000) }, "temporary"},
		"an entry, and no more":  {func(r ldapRequest) []byte { return append(r.entry("a"), r.result(52)...) }, "temporary"},
		"a server elsewhere":     {func(r ldapRequest) []byte { return r.result(ldap.LDAPResultReferral) }, "temporary"},
		"no such base":           {func(r ldapRequest) []byte { return r.result(ldap.LDAPResultNoSuchObject) }, "temporary"},
		"no right to search":     {func(r ldapRequest) []byte { return r.result(ldap.LDAPResultInsufficientAccessRights) }, "temporary"},
		"a code that means else": {func(r ldapRequest) []byte { return r.result(ldap.LDAPResultInvalidCredentials) }, "temporary"},
	} {
		s := startFakeLDAP(t, func(r ldapRequest) []byte {
			if r.op == ldap.ApplicationSearchRequest {
				return tt.answer(r)
			}
			return r.result(0)
		})
		if got := outcome(openLDAP(t, 10*time.Second, s).Lookup(t.Context(), asked)); got != tt.want {
			t.Errorf("%s: %s, want %s", what, got, tt.want)
		}
	}
}

func TestLDAPPermissions(t *testing.T) {
	for value, want := range map[string]string{
		"1": "", "TRUE": "", "yes": "", "0": "refused", "False": "refused", "no": "refused", "-": "refused", "disabled": "temporary",
	} {
		s := startFakeLDAP(t, func(r ldapRequest) []byte {
			switch {
			case r.op != ldap.ApplicationSearchRequest:
				return found(r)
			case value == "-":
				return append(r.entry(annaDN), r.result(0)...)
			}
			return append(r.entry(annaDN, "pop", value), r.result(0)...)
		})
		d := openLDAP(t, 10*time.Second, s)
		for _, service := range []configs.Service{configs.POP3, configs.POP3S} {
			pop3 := verify.with(func(q *Query) { q.Service = service })
			got, err := d.Lookup(t.Context(), pop3)
			switch {
			case want == "temporary" && outcome(got, err) == want:
			case want == "temporary" || err != nil || !got.Verified || (got.Refuse != "") != (want == "refused"):
				t.Errorf("%s: %s: %+v, %v", service, value, got, err)
			}
			pop3.Secret = "wrong" // hears of no permission
			if got := outcome(d.Lookup(t.Context(), pop3)); want != "temporary" && got != "denied, wait 0s" {
				t.Errorf("%s: %s: a wrong password is answered %s", service, value, got)
			}
		}
	}
}

// A bind that fails is a wrong password if the server says so in so many words, and a failure else.
func TestLDAPBinds(t *testing.T) {
	for code, want := range map[uint16]string{
		ldap.LDAPResultSuccess:                     outcome(Answer{Backend: "store1", Verified: true}, nil),
		ldap.LDAPResultInvalidCredentials:          "denied, wait 0s",
		ldap.LDAPResultOperationsError:             "temporary",
		ldap.LDAPResultReferral:                    "temporary",
		ldap.LDAPResultSaslBindInProgress:          "temporary",
		ldap.LDAPResultConfidentialityRequired:     "temporary",
		ldap.LDAPResultNoSuchObject:                "temporary",
		ldap.LDAPResultInappropriateAuthentication: "temporary",
		ldap.LDAPResultBusy:                        "temporary",
		ldap.LDAPResultUnwillingToPerform:          "temporary",
	} {
		s := startFakeLDAP(t, func(r ldapRequest) []byte {
			if r.dn == annaDN {
				return r.result(code)
			}
			return found(r)
		})
		d := openLDAP(t, 10*time.Second, s)
		answer, err := d.Lookup(t.Context(), verify)
		if got := outcome(answer, err); got != want {
			t.Errorf("code %d: %s (%v), want %s", code, got, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), asked.Secret) || strings.Contains(err.Error(), `"own"`)) {
			t.Errorf("%v: has a password in it", err)
		}
	}
}

// Without a password, or without a name, a bind would be an anonymous one, which succeeds.
func TestLDAPNeverAnonymous(t *testing.T) {
	s := startFakeLDAP(t, found)
	empty := verify.with(func(q *Query) { q.Secret = "" })
	if got := outcome(openLDAP(t, 10*time.Second, s).Lookup(t.Context(), empty)); got != "denied, wait 0s" {
		t.Errorf("an empty password: %s", got)
	}
	nameless := startFakeLDAP(t, func(r ldapRequest) []byte {
		if r.op == ldap.ApplicationSearchRequest {
			return append(r.entry(""), r.result(0)...)
		}
		return r.result(0)
	})
	if got := outcome(openLDAP(t, 10*time.Second, nameless).Lookup(t.Context(), verify)); got != "temporary" {
		t.Errorf("an entry without a name: %s", got)
	}
	for _, s := range []*fakeLDAP{s, nameless} {
		for _, what := range s.asked() {
			if strings.HasPrefix(what, "bind") && what != "bind cn=jackdaw" {
				t.Errorf("asked for %q", what)
			}
		}
	}
}

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

func TestLDAPFilters(t *testing.T) {
	for filter, want := range map[string]string{
		"(mail=:user)":                           "(mail=anna@a.example)",
		"\n(&\n  (uid=:local)\n\t(o=:domain)\n)": "(&(uid=anna)(o=a.example))",
		"(proxyAddresses=smtp::user)":            "(proxyAddresses=smtp:anna@a.example)",
		"(|(a=:service)(b=:sni)(c=:client))":     "(|(a=imaps)(b=mail.a.example)(c=192.0.2.5))",
		"(cn:caseExactMatch:=:local)":            "(cn:caseExactMatch:=anna)",
		"(a=:username)":                          "(a=:username)",
		`(a=\3auser)`:                            `(a=\3auser)`,
		"mail=:user":                             "error",
		"(mail=:user":                            "error",
		"":                                       "error",
	} {
		d, err := newLDAP(configs.Directory{Filter: configs.Query(filter), URLs: []string{"ldap://127.0.0.1"}}, nil)
		got := "error"
		if err == nil {
			got = fillFilter(d.(*ldapDirectory).filter, asked)
		}
		if got != want {
			t.Errorf("%q: %s, want %s", filter, got, want)
		}
	}
}

// FuzzFilter: whatever a user is called, the filter is as it was written, with his name as it is.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{"anna@a.example", "*", "a)(uid=*", "\\2a", "\x00", "ü:user", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, user string) {
		filter, err := ldap.CompileFilter(fillFilter("(&(mail=:user)(o=x))", Query{User: user}))
		if err != nil {
			t.Fatalf("%q: %v", user, err)
		}
		if len(filter.Children) != 2 || filter.Children[0].Tag != ldap.FilterEqualityMatch {
			t.Fatalf("%q: %d parts", user, len(filter.Children))
		}
		if value := filter.Children[0].Children[1].Data.String(); value != user {
			t.Errorf("%q has become %q", user, value)
		}
	})
}
