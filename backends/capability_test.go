package backends

import (
	"slices"
	"strings"
	"testing"
)

// capsOf reads "NAME=value;NAME | MECHANISM ...".
func capsOf(s string) Capabilities {
	var caps Capabilities
	list, mechanisms, _ := strings.Cut(s, "|")
	for item := range strings.SplitSeq(list, ";") {
		if name, value, _ := strings.Cut(strings.TrimSpace(item), "="); name != "" {
			caps.List = append(caps.List, Capability{name, value})
		}
	}
	caps.Mechanisms = strings.Fields(mechanisms)
	return caps
}

func writeCaps(caps Capabilities) string {
	var list []string
	for _, c := range caps.List {
		if c.Value != "" {
			c.Name += "=" + c.Value
		}
		list = append(list, c.Name)
	}
	return strings.TrimSpace(strings.Join(list, ";") + " | " + strings.Join(caps.Mechanisms, " "))
}

func TestCommon(t *testing.T) {
	for _, test := range []struct{ what, a, b, want string }{
		{"the same", "IDLE;MOVE | PLAIN", "IDLE;MOVE | PLAIN", "IDLE;MOVE | PLAIN"},
		{"what both have, in the order of the first", "MOVE;IDLE;QUOTA | PLAIN LOGIN X", "X;IDLE;MOVE | Y LOGIN PLAIN", "MOVE;IDLE | PLAIN LOGIN"},
		{"nothing", "IDLE | PLAIN", "MOVE | LOGIN", "|"},
		{"with nothing", "IDLE | PLAIN", "", "|"},
		{"lists of words", "SIEVE=fileinto vacation date", "SIEVE=date fileinto mime", "SIEVE=fileinto date |"},
		{"lists without a word in common", "SIEVE=fileinto;IDLE", "SIEVE=vacation;IDLE", "IDLE |"},
		{"parts of words are none", "SIEVE=vacation", "SIEVE=vacation-seconds", "|"},
		{"the smaller number", "MAXREDIRECTS=4;SIZE=9", "MAXREDIRECTS=10;SIZE=9", "MAXREDIRECTS=4;SIZE=9 |"},
		{"the smaller number of the other", "SIZE=18446744073709551615", "SIZE=10", "SIZE=10 |"},
		{"a number and none", "SIZE=10", "SIZE=many", "|"},
		{"a value and none", "NOTIFY=mailto", "NOTIFY", "|"},
		{"none and none", "NOTIFY", "NOTIFY", "NOTIFY |"},
	} {
		t.Run(test.what, func(t *testing.T) {
			a, b := capsOf(test.a), capsOf(test.b)
			if got := writeCaps(a.Common(b)); got != test.want {
				t.Errorf("%q and %q have %q in common, want %q", test.a, test.b, got, test.want)
			}
			if !a.Equal(capsOf(test.a)) || !b.Equal(capsOf(test.b)) {
				t.Error("they have changed")
			}
		})
	}
}

func TestCapabilities(t *testing.T) {
	caps := capsOf("IDLE;SIEVE=a b | PLAIN")
	if value, ok := caps.Value("SIEVE"); value != "a b" || !ok || !caps.Has("IDLE") || caps.Has("MOVE") || caps.Has("PLAIN") {
		t.Errorf("%q is not what it says", writeCaps(caps))
	}
	for _, other := range []string{"IDLE | PLAIN", "IDLE;SIEVE=a | PLAIN", "IDLE;SIEVE=a b | LOGIN", "IDLE;SIEVE=a b"} {
		if caps.Equal(capsOf(other)) {
			t.Errorf("equal to %q", other)
		}
	}
}

func TestRelayable(t *testing.T) {
	for _, test := range []struct{ all, want string }{
		{"PLAIN LOGIN XOAUTH2", "PLAIN LOGIN XOAUTH2"},
		{"PLAIN SCRAM-SHA-1 SCRAM-SHA-256", "PLAIN SCRAM-SHA-1 SCRAM-SHA-256"},
		{"SCRAM-SHA-1-PLUS SCRAM-SHA-1 PLAIN", "PLAIN"},
		{"PLAIN SCRAM-SHA-256 SCRAM-SHA-1 SCRAM-SHA-1-PLUS", "PLAIN"},
		{"GS2-KRB5-PLUS GS2-KRB5 PLAIN", "GS2-KRB5 PLAIN"},
		{"", ""},
	} {
		all := strings.Fields(test.all)
		if got := strings.Join(relayable(all), " "); got != test.want {
			t.Errorf("of %q %q can be relayed, want %q", test.all, got, test.want)
		}
		if !slices.Equal(all, strings.Fields(test.all)) {
			t.Errorf("%q became %q", test.all, all)
		}
	}
}
