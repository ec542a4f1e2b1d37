package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// probed is what jackdaw probe tells, as far as it matters here.
type probed struct {
	Capabilities, Mechanisms []string
	TLS                      struct{ Certificates []struct{ Names []string } }
	Login                    struct{ Accepted bool }
	Problems                 []string
}

// probe has jackdaw probe look at a jackdaw, and log in if there is a user.
func (jd *jackdaw) probe(t testing.TB, service, name, user string) probed {
	t.Helper()
	args := []string{jd.at(ports()[service]), "--service", service, "--sni", name, "--ca", jd.caFile()}
	if user != "" {
		args = append(args, "--user", user)
	}
	return probe(t, args...)
}

// probe runs jackdaw probe with the password of every user. It must be of one mind with itself about how it ends.
func probe(t testing.TB, args ...string) probed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), built(t), append([]string{"probe", "--json", "--timeout", patience.String()}, args...)...)
	cmd.Stdin = strings.NewReader(password)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 1) {
		t.Fatalf("%s: %v\n%s", cmd, err, errOut.Bytes())
	}
	var r probed
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out, errOut.Bytes())
	}
	if ok := err == nil; ok != (len(r.Problems) == 0) {
		t.Errorf("jackdaw probe ends with %v and has the problems %q", err, r.Problems)
	}
	return r
}

// TestProbe: jackdaw probe finds nothing wrong with real servers, logs in there, and says what is wrong where something is.
func TestProbe(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example")
	mta := postfix{sasl: dovecotSASL(dovecot)}.start(t, "mta")
	cyrus := startCyrus(t, "store2", "alice@a.example")
	at := func(s *store, service string, more ...string) []string {
		return append([]string{s.at(ports()[service]), "--service", service, "--ca", s.dir + "/ca.pem"}, more...)
	}
	known := []string{"--sni", "store.example", "--user", "alice@a.example"}
	for service, s := range map[string]*store{
		"imap": dovecot, "imaps": dovecot, "pop3": dovecot, "pop3s": dovecot, "sieve": dovecot, "submission": mta, "submissions": mta,
	} {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			r := probe(t, at(s, service, known...)...)
			if len(r.Problems) > 0 || !r.Login.Accepted || !slices.Contains(r.Mechanisms, "PLAIN") || len(r.TLS.Certificates) != 2 {
				t.Errorf("it finds %+v", r)
			}
		})
	}
	for what, c := range map[string]struct {
		args    []string
		problem string
	}{
		"a certificate for another name": {at(dovecot, "imaps", "--sni", "other.example", "--user", "alice@a.example"), "other.example"},
		"an authority unknown here":      {at(dovecot, "imap", append([]string{"--ca", mta.dir + "/ca.pem"}, known...)...), "authority"},
		"an unknown user":                {at(dovecot, "pop3s", "--sni", "store.example", "--user", "nobody@a.example"), "wrong name or password"},
		"a login in the clear":           {at(dovecot, "sieve", "--tls", "none", "--user", "alice@a.example"), "password is not sent"},
		"TLS where there is none":        {at(dovecot, "imap", "--tls", "implicit", "--sni", "store.example"), "--tls starttls"},
		"nobody":                         {at(dovecot.proxying(), "submission", "--timeout", "500ms"), "timeout"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			if r := probe(t, c.args...); r.Login.Accepted || !strings.Contains(strings.Join(r.Problems, "\n"), c.problem) {
				t.Errorf("it finds %+v", r)
			}
		})
	}
	if unix := probe(t, "unix:"+cyrus.lmtpSocket(), "--service", "lmtp"); len(unix.Problems) > 0 || !slices.Contains(unix.Capabilities, "IGNOREQUOTA") {
		t.Errorf("at Cyrus' socket it finds %+v", unix)
	}
}
