package configs

import (
	"slices"
	"testing"
)

func TestServices(t *testing.T) {
	for _, test := range []struct {
		service, protocol Service
		implicit          bool
		alpn              string
	}{
		{IMAP, IMAP, false, "imap"},
		{IMAPS, IMAP, true, "imap"},
		{POP3, POP3, false, "pop3"},
		{POP3S, POP3, true, "pop3"},
		{Submission, Submission, false, "smtp"},
		{Submissions, Submission, true, "smtp"},
		{Sieve, Sieve, false, "managesieve"},
		{LMTP, LMTP, false, "lmtp"},
	} {
		s := test.service
		if !s.Known() || s.Protocol() != test.protocol || s.ImplicitTLS() != test.implicit || !slices.Equal(s.ALPN(), []string{test.alpn}) {
			t.Errorf("%s: %+v, want %+v", s, s.info(), test)
		}
	}
	if s := Service("gopher"); s.Known() || s.Protocol() != "" {
		t.Errorf("%s: %+v", s, s.info())
	}
	if got := Protocols(); !slices.Equal(got, []Service{IMAP, POP3, Submission, Sieve, LMTP}) {
		t.Errorf("protocols: %v", got)
	}
}
