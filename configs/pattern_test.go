package configs

import (
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		pattern, s string
		want       bool
	}{
		{"a.example", "a.example", true},
		{"a.example", "b.example", false},
		{"a.example", "a.example.net", false},
		{"*", "", true},
		{"*", "anything at all", true},
		{"*.example", "a.b.example", true},
		{"*.example", "example", false},
		{"a*", "a", true},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"a*b*c", "a.b.b.c", true},
		{"a*b*c", "a.c.b", false},
		{"*ab*ab", "ab", false},
		{"**", "x", true},
		{"", "", true},
		{"", "x", false},
	} {
		if got := Match(test.pattern, test.s); got != test.want {
			t.Errorf("Match(%q, %q) is %t", test.pattern, test.s, got)
		}
	}
}

// TestMatchIsLinear: a matcher that goes back would take longer than anybody waits.
func TestMatchIsLinear(t *testing.T) {
	if Match(strings.Repeat("a*", 1000)+"b", strings.Repeat("a", 100_000)) {
		t.Error("there is no b")
	}
}

func TestForms(t *testing.T) {
	forms := map[string]func(string) (string, error){"name": DNSName, "pattern": dnsPattern, "realm": realmPattern}
	for _, test := range []struct{ form, in, want string }{
		{"name", "Bücher.Example", "xn--bcher-kva.example"},
		{"name", "a..example", ""},
		{"name", "example.", ""},
		{"name", "", ""},
		{"name", strings.Repeat("a", 64), ""},
		{"name", strings.Repeat("a.", 127) + "a", ""},
		{"name", "*.example", ""},
		{"pattern", "*", "*"},
		{"pattern", "*.Bücher.Example", "*.xn--bcher-kva.example"},
		{"pattern", "IMAP*.*.example", "imap*.*.example"},
		{"pattern", "bü*.example", ""},
		{"pattern", "*..example", ""},
		{"realm", "mail.{domain}", "mail.{domain}"},
		{"realm", "*.A.example", "*.a.example"},
		{"realm", "*.{domain}", ""},
		{"realm", "{user}.example", ""},
	} {
		got, err := forms[test.form](test.in)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s %q: got %q, %v", test.form, test.in, got, err)
		}
	}
}

func TestSuggest(t *testing.T) {
	valid := []string{"certificates", "default", "min_version"}
	for name, want := range map[string]string{
		"certificate": `; did you mean "certificates"?`,
		"minversion":  `; did you mean "min_version"?`,
		"ciphers":     `; valid: certificates, default, min_version`,
	} {
		if got := Suggest(name, valid); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := Suggest("a", []string{"b"}); got != "; valid: b" {
		t.Errorf("names with no letter in common: got %q", got)
	}
	if got := Suggest("a", nil); got != "" {
		t.Errorf("without a choice: got %q", got)
	}
}
