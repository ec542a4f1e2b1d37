package backends

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"jackdaw/configs"
)

// usual is the [users] table with its defaults.
var usual = configs.Users{Separators: "@%", Lowercase: true}

func TestCanonical(t *testing.T) {
	kept := configs.Users{Separators: "@%"} // lowercase = false
	cyrus := configs.Users{Separators: "@%", Lowercase: true, Unqualified: []string{"cyrus", "müller"}}
	only := configs.Users{Separators: "@", Lowercase: true}
	for _, test := range []struct {
		what  string
		users configs.Users
		name  string
		realm string
		want  string // "" if it is refused
	}{
		{"as it should be", usual, "alice@example.org", "", "alice@example.org"},
		{"capitals", usual, "A@X", "", "a@x"},
		{"capitals that are kept", kept, "A@X", "", "A@x"},
		{"capitals with accents", usual, "ÄÖ@x", "", "äö@x"},
		{"a percent sign", usual, "a%x", "", "a@x"},
		{"a percent sign that parts nothing", only, "a%x", "y", "a%x@y"},
		{"a plus", usual, "a+b@x", "", "a+b@x"},
		{"a blank inside", usual, "a b@x", "", "a b@x"},
		{"quotes are part of the name", usual, `"a"@x`, "", `"a"@x`},

		{"no domain", usual, "a@", "", ""},
		{"no domain behind a percent sign", usual, "a%", "", ""},
		{"no domain, and a realm", usual, "a@", "x", ""},
		{"no local part", usual, "@x", "", ""},
		{"a separator alone", usual, "@", "x", ""},
		{"nothing", usual, "", "x", ""},
		{"two separators", usual, "a@x@y", "", ""},
		{"two separators of the other kind", usual, "a%x%y", "", ""},
		{"one of each", usual, "a%x@y", "", ""},
		{"one of each, the other way round", usual, "a@x%y", "", ""},
		{"a second one that parts nothing", only, "a%x@y", "", "a%x@y"},
		{"an @ that parts nothing", configs.Users{Separators: "%"}, "a@x", "y", ""},
		{"a master user", usual, "user*master", "x", ""},
		{"a master user in a domain", usual, "user*master@x", "", ""},
		{"a master user behind the domain", usual, "user@x*master", "", ""},

		{"a dot behind", usual, "a@x.", "", ""},
		{"a dot alone", usual, "a@.", "", ""},
		{"a dot before", usual, "a@.x", "", ""},
		{"two dots", usual, "a@x..y", "", ""},
		{"an ideographic dot behind", usual, "a@x。", "", ""},
		{"an ideographic dot", usual, "a@x。y", "", "a@x.y"},
		{"a blank in the domain", usual, "a@x y", "", ""},
		{"an underscore in the domain", usual, "a@x_y", "", ""},
		{"an address for a domain", usual, "a@[192.0.2.1]", "", ""},
		{"a slash in the domain", usual, "a@x/../y", "", ""},
		{"a brace in the domain", usual, "a@{domain}", "", ""},
		{"a full-width separator in the domain", usual, "a@x＠y", "", ""},
		{"an IDN", usual, "a@müller.example", "", "a@xn--mller-kva.example"},
		{"an IDN in capitals", usual, "a@MÜLLER.example", "", "a@xn--mller-kva.example"},
		{"an IDN in NFD", usual, "a@mu\u0308ller.example", "", "a@xn--mller-kva.example"},
		{"an IDN as A-label", usual, "a@xn--mller-kva.example", "", "a@xn--mller-kva.example"},
		{"an IDN as A-label in capitals", usual, "a@XN--MLLER-KVA.example", "", "a@xn--mller-kva.example"},
		{"an A-label that is none", usual, "a@xn--a.example", "", ""},
		{"full-width letters in the domain", usual, "a@ｅxample", "", "a@example"},
		{"a sharp s is its own letter", usual, "a@faß.example", "", "a@xn--fa-hia.example"},
		{"a label too long", usual, "a@" + strings.Repeat("x", 64), "", ""},
		{"a label as long as can be", usual, "a@" + strings.Repeat("x", 63), "", "a@" + strings.Repeat("x", 63)},
		{"a domain too long", usual, "a@" + strings.Repeat("x.", 127) + "x", "", ""},
		{"a domain as long as can be", usual, "a@" + strings.Repeat("x.", 126) + "x", "", "a@" + strings.Repeat("x.", 126) + "x"},

		{"NFC", usual, "jose\u0301@x", "", "jos\u00e9@x"},
		{"NFC already", usual, "jos\u00e9@x", "", "jos\u00e9@x"},
		{"full-width letters are others", usual, "ａ@x", "", "ａ@x"},
		{"so are ligatures", usual, "ﬁ@x", "", "ﬁ@x"},
		{"a Kelvin sign is a k", usual, "\u212aarl@x", "", "karl@x"},
		{"a Kelvin sign is a K", kept, "\u212aarl@x", "", "Karl@x"},
		{"a zero-width space", usual, "a\u200bb@x", "", ""},
		{"a zero-width joiner", usual, "a\u200db@x", "", ""},
		{"a zero-width joiner in the domain", usual, "a@x\u200dy", "", ""},
		{"a soft hyphen", usual, "a\u00adb@x", "", ""},
		{"a byte order mark", usual, "\ufeffa@x", "", ""},
		{"right to left", usual, "a\u202eb@x", "", ""},
		{"a Hangul filler", usual, "a\u3164@x", "", ""},
		{"a variation selector", usual, "a\ufe0f@x", "", ""},
		{"a grapheme joiner", usual, "a\u034f@x", "", ""},
		{"private use", usual, "a\ue000@x", "", ""},
		{"a line separator", usual, "a\u2028@x", "", ""},
		{"a no-break space", usual, "a\u00a0b@x", "", ""},
		{"an ideographic space", usual, "a\u3000b@x", "", ""},
		{"NUL", usual, "a\x00@x", "", ""},
		{"NUL in the domain", usual, "a@x\x00", "", ""},
		{"a tab", usual, "a\tb@x", "", ""},
		{"CR LF", usual, "a\r\nb@x", "", ""},
		{"DEL", usual, "a\x7f@x", "", ""},
		{"C1", usual, "a\u0085@x", "", ""},
		{"ISO 8859-1", usual, "\xe4@x", "", ""},
		{"half a rune", usual, "a@x\xc3", "", ""},
		{"a blank before", usual, " a@x", "", ""},
		{"a blank behind", usual, "a@x ", "", ""},
		{"a blank behind the local part", usual, "a @x", "", ""},
		{"a blank behind a bare name", usual, "a ", "x", ""},
		{"as long as can be", usual, strings.Repeat("a", 510) + "@x", "", strings.Repeat("a", 510) + "@x"},
		{"too long", usual, strings.Repeat("a", 511) + "@x", "", ""},
		{"too long with its realm", usual, strings.Repeat("a", 512), "x", ""},
		{"too long in lower case", usual, strings.Repeat("Ⱥ", 255) + "@x", "", ""},

		{"a bare name", usual, "alice", "", "alice"},
		{"a bare name with a realm", usual, "Alice", "example.org", "alice@example.org"},
		{"a realm that is an IDN", usual, "alice", "müller.example", "alice@xn--mller-kva.example"},
		{"a domain and a realm", usual, "alice@example.net", "example.org", "alice@example.net"},
		{"a name that gets no realm", cyrus, "cyrus", "example.org", "cyrus"},
		{"in capitals", cyrus, "CYRUS", "example.org", "cyrus"},
		{"in NFD", cyrus, "mu\u0308ller", "example.org", "müller"},
		{"with a domain of its own", cyrus, "cyrus@example.org", "example.net", "cyrus@example.org"},
		{"another name", cyrus, "cyrus2", "example.org", "cyrus2@example.org"},
	} {
		t.Run(test.what, func(t *testing.T) {
			user, err := NewNames(test.users).Canonical(test.name, test.realm)
			switch {
			case test.want == "" && (!errors.Is(err, ErrName) || user != User{}):
				t.Errorf("%q became %+v, %v; want it refused", test.name, user, err)
			case test.want != "" && (err != nil || user.String() != test.want):
				t.Errorf("%q became %q, %v; want %q", test.name, user, err, test.want)
			}
		})
	}
}

func TestRealm(t *testing.T) {
	users := configs.Users{DefaultRealm: "default.example", Realms: map[string]string{
		"mail.a.example":       "exact.example",
		"*.a.example":          "a.example",
		"*.b.a.example":        "longer.example",
		"mail.{domain}":        "{domain}",
		"imap.{domain}.hoster": "{domain}.example",
		"pop*":                 "pop.example",
	}}
	for _, test := range []struct{ listener, sni, want string }{
		{"", "", "default.example"},
		{"", "other.example", "default.example"},
		{"", "mail.a.example", "exact.example"},
		{"", "imap.a.example", "a.example"},
		{"", "x.imap.a.example", "a.example"},
		{"", "a.example", "default.example"},
		{"", ".a.example", "default.example"},
		{"", "imap.b.a.example", "longer.example"},
		{"", "mail.b.a.example", "longer.example"},
		{"", "mail.c.example", "c.example"},
		{"", "mail.", "default.example"},
		{"", "xmail.c.example", "default.example"},
		{"", "imap.shop.hoster", "shop.example"},
		{"", "imap.hoster", "default.example"},
		{"", "pop3.example", "pop.example"},
		{"", "pop", "default.example"},
		{"listener.example", "mail.a.example", "listener.example"},
		{"listener.example", "", "listener.example"},
	} {
		if got := NewNames(users).Realm(test.listener, test.sni); got != test.want {
			t.Errorf("realm of listener %q, sni %q is %q, want %q", test.listener, test.sni, got, test.want)
		}
	}
	// Of patterns that are equal but for their placeholder it is the same one every time.
	twins := configs.Users{Realms: map[string]string{"mail.*": "a.example", "mail.{domain}": "b.example"}}
	for range 50 {
		if got := NewNames(twins).Realm("", "mail.x"); got != "a.example" {
			t.Fatalf("realm is %q this time", got)
		}
	}
	star := configs.Users{Realms: map[string]string{"*": "everybody.example"}}
	if got := NewNames(star).Realm("", ""); got != "" {
		t.Errorf("no name led to %q", got)
	}
}

func TestForm(t *testing.T) {
	alice, bare := User{"alice", "example.org"}, User{"alice", ""}
	for _, test := range []struct {
		user       User
		form, want string
	}{
		{alice, "{user}", "alice@example.org"},
		{alice, "{local}", "alice"},
		{alice, "{local}%{domain}", "alice%example.org"},
		{alice, "{domain}/{local}", "example.org/alice"},
		{alice, "x-{local}-{local}", "x-alice-alice"},
		{alice, "{other}{", "{other}{"},
		{bare, "{user}", "alice"},
		{bare, "{local}", "alice"},
		{bare, "{local}%{domain}", "alice"},
		{bare, "x-{local}", "x-alice"},
		{User{"{domain}", "x"}, "{local}.{user}", "{domain}.{domain}@x"},
		{User{"{user}", ""}, "x-{local}", "x-{user}"},
		{User{"%{local}$1\\1", "x"}, "{local}", "%{local}$1\\1"},
	} {
		if got := test.user.Form(test.form); got != test.want {
			t.Errorf("%v in the form %q is %q, want %q", test.user, test.form, got, test.want)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, name := range []string{"A@X", "a@x.", "a%x", "a@", "@x", "a@x@y", "a+b@x", "ａﬁ@ｅxample", "a\u200b@x", "a\x00@x", "a @x ", "user*master",
		"a@müller.example", "a@XN--MLLER-KVA.example", "jose\u0301@x", "İ@İ", "\u1fbb\u0345", "cyrus", "Ⱥ@x。y", "ǅ\u0302@x", "ΌΣ@x"} {
		f.Add(name, "example.org", true)
		f.Add(name, "", false)
	}
	f.Fuzz(func(t *testing.T, name, realm string, lower bool) {
		if !utf8.ValidString(realm) {
			return // no configuration has it
		}
		n := NewNames(configs.Users{Separators: "@%", Lowercase: lower, Unqualified: []string{"cyrus"}})
		user, err := n.Canonical(name, realm)
		if err != nil {
			if !errors.Is(err, ErrName) {
				t.Fatalf("%q is refused with %v", name, err)
			}
			return
		}
		if again, err := n.Canonical(user.String(), realm); err != nil || again != user {
			t.Fatalf("%q became %+v, and that %+v, %v", name, user, again, err)
		}
		for _, name := range []string{user.String(), user.Local} {
			if err := checkName(name); err != nil {
				t.Fatalf("%q holds %q: %v", name, name, err)
			}
		}
		if strings.ContainsAny(user.Local, "@%") || strings.ContainsFunc(user.Domain, notDNS) {
			t.Fatalf("%q became %+v", name, user)
		}
		checkForm(t, user)
	})
}

func notDNS(r rune) bool {
	return r != '.' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
}

// checkForm expands the parts one by one: what is in a name must stay as it is.
func checkForm(t *testing.T, user User) {
	if got := user.Form("<{local}|{user}>"); got != "<"+user.Local+"|"+user.String()+">" {
		t.Fatalf("form of %+v is %q", user, got)
	}
	if got := user.Form("<{local}|{domain}>"); user.Domain != "" && got != "<"+user.Local+"|"+user.Domain+">" {
		t.Fatalf("form of %+v is %q", user, got)
	}
}
