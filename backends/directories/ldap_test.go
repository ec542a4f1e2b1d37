package directories

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
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
