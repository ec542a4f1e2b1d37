package integration

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// openssl runs openssl as a client of a service, which asks for a name, or for none, and says something within TLS.
func (jd *jackdaw) openssl(t testing.TB, service, name, input string, args ...string) (said string, err error) {
	all := []string{"s_client", "-connect", jd.at(ports()[service]), "-CAfile", jd.caFile(), "-verify_return_error"}
	if name == "" {
		all = append(all, "-noservername")
	} else {
		all = append(all, "-servername", name)
	}
	if startTLS := byStartTLS(service); startTLS != "" {
		all = append(all, "-starttls", startTLS)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", append(all, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// resumer is openssl with one version of TLS, which keeps sessions in files of a directory.
type resumer struct{ version, dir string }

// keep begins a session with jackdaw, and keeps it.
func (r resumer) keep(t testing.TB, jd *jackdaw, name, session string) {
	t.Helper()
	if r.visit(t, jd, "imaps", name, "-sess_out", filepath.Join(r.dir, session)) {
		t.Errorf("%s: a new session is resumed", r.version)
	}
}

// resumes wants each of some jackdaws to go on with a session for any service, or not to.
func (r resumer) resumes(t testing.TB, want bool, all []*jackdaw, name, session string) {
	t.Helper()
	for _, jd := range all {
		for _, service := range []string{"imaps", "imap", "sieve"} {
			if got := r.visit(t, jd, service, name, "-sess_in", filepath.Join(r.dir, session)); got != want {
				t.Errorf("%s: %s session for %s at %s: resumed: %v", r.version, session, name, jd.at(ports()[service]), got)
			}
		}
	}
}

// visit tells whether jackdaw goes on with a session. Whoever stays until the goodbye has been given the ticket.
func (r resumer) visit(t testing.TB, jd *jackdaw, service, name string, args ...string) (resumed bool) {
	t.Helper()
	said, err := jd.openssl(t, service, name, farewell[protocol(service)]+"\r\n", append(args, r.version, "-ign_eof")...)
	how := newOrReused.FindStringSubmatch(said)
	if err != nil || how == nil {
		t.Fatalf("openssl at %s for %s: %v\n%s", service, name, err, said)
	}
	return how[1] == "Reused"
}

var newOrReused = regexp.MustCompile(`(?m)^(New|Reused), TLSv1`)

// newTicketKey makes a line for a file of ticket keys.
func newTicketKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return base64.StdEncoding.EncodeToString(key) + "\n"
}

// TestTicketKeys: two jackdaws that share their ticket keys go on with each other's sessions, for any service, under the same
// name. A key that was taken out of the file opens nothing any more.
func TestTicketKeys(t *testing.T) {
	t.Parallel()
	store := startDovecot(t, "store1", passwords)
	file, older, newer := filepath.Join(t.TempDir(), "tickets"), newTicketKey(), newTicketKey()
	replace(t, file, []byte(older))
	f := frontend{ca: newCA(t), tls: fmt.Sprintf("ticket_keys = %q", file)}
	both := []*jackdaw{f.start(t, store.backend()), f.start(t, store.backend())}
	change := func(times int, keys string) {
		replace(t, file, []byte(keys))
		for _, jd := range both {
			jd.loggedTimes(t, times, "ticket keys changed")
		}
	}
	clients := []resumer{{"-tls1_2", t.TempDir()}, {"-tls1_3", t.TempDir()}}
	for _, r := range clients {
		r.keep(t, both[0], "mail.a.example", "first")
		r.resumes(t, true, both, "mail.a.example", "first")
		r.resumes(t, false, both, "mail.b.example", "first")
	}
	change(1, newer+older)
	for _, r := range clients {
		r.resumes(t, true, both, "mail.a.example", "first")
		r.keep(t, both[1], "mail.a.example", "second")
	}
	change(2, newer)
	for _, r := range clients {
		r.resumes(t, false, both, "mail.a.example", "first")
		r.resumes(t, true, both, "mail.a.example", "second")
	}
}
