package tlsstore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

func TestProblems(t *testing.T) {
	leaf, other := leafFor(t, "mail.example"), leafFor(t, "other.example")
	tests := []struct {
		about string
		files map[string][]byte
		want  string // "file: text", shortened
	}{
		{"chain without key", map[string][]byte{"a.crt": other.ChainPEM}, "a.crt: no private key for the certificate of other.example"},
		{"key without chain", map[string][]byte{"a.key": other.KeyPEM}, "a.key: no certificate for the private key"},
		{"cut off", map[string][]byte{"a.crt": other.ChainPEM[:200]}, "a.crt: a PEM block is damaged or cut off"},
		{"unparsable", map[string][]byte{"a.crt": block("CERTIFICATE", []byte("?"))}, "a.crt: parsing a certificate: "},
		{"encrypted", map[string][]byte{"a.key": block("ENCRYPTED PRIVATE KEY", []byte("?"))}, "a.key: parsing a private key: it is encrypted"},
		{"no names", pemFiles("a", leafFor(t)), "a.crt: the certificate has no DNS name among its subject alternative names"},
		{"expired", pemFiles("a", issue(t, devca.Options{Names: []string{"old.example"}, NotAfter: time.Unix(1.9e9, 0).AddDate(-4, 0, 0)})),
			"a.crt: the certificate of old.example expired on 2026-03-17"},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			f := newFixture(t, tt.files)
			must(t, leaf.Write(f.dir, "mail"))
			f.awaitShow("mail.example", leaf) // whatever is wrong with others
			problems := f.Problems()
			if len(problems) != 1 || !strings.HasPrefix(problems[0].String(), filepath.Join(f.dir, tt.want)) {
				t.Errorf("problems %v, want %s", problems, tt.want)
			}
		})
	}
}

func TestProblemsOfPlaces(t *testing.T) {
	dir, leaf := t.TempDir(), leafFor(t, "mail.example")
	must(t, leaf.Write(dir, "mail"))
	missing := filepath.Join(dir, "missing")
	cfg := configs.TLS{Certificates: []string{missing, dir}, Default: pointer("nobody.example")}
	f := openFixture(t, dir, cfg, quick)
	f.mustShow("mail.example", leaf)
	want := []Problem{{"", "no certificate for the default name nobody.example"}, {missing, "no such file or directory"}}
	if diff := cmp.Diff(want, f.Problems()); diff != "" {
		t.Error(diff)
	}
}

func TestUnreadableFile(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root reads everything")
	}
	leaf := leafFor(t, "mail.example")
	f := newFixture(t, map[string][]byte{"mail.crt": leaf.ChainPEM})
	write(t, filepath.Join(f.dir, "mail.key"), leaf.KeyPEM)
	must(t, os.Chmod(filepath.Join(f.dir, "mail.key"), 0))
	f.awaitProblem("mail.key")
	must(t, os.Chmod(filepath.Join(f.dir, "mail.key"), 0o600))
	f.awaitShow("mail.example", leaf)
}

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	names := []string{"b.example", "*.b.example"}
	soon := time.Now().AddDate(0, 0, 1)
	for name, o := range map[string]devca.Options{
		"new":  {Names: names},
		"old":  {Names: names[:1], NotAfter: soon},
		"rsa":  {Names: names, RSA: true},
		"a":    {Names: []string{"A.example", "a.example"}},
		"part": {Names: []string{"b.example", "c.example"}, NotAfter: soon},
		"none": {},
	} {
		must(t, issue(t, o).Write(dir, name))
	}
	write(t, at("zcopy.pem"), read(t, at("a.crt")))
	f := openFixture(t, dir, configs.TLS{Certificates: []string{dir}}, quick)
	row := func(name, keyType string, names ...string) Certificate {
		return Certificate{Names: names, Source: FromFile, ChainFile: at(name + ".crt"), KeyFile: at(name + ".key"), KeyType: keyType,
			Issuer: "CN=jackdaw throw-away CA", Serving: true}
	}
	none, a := row("none", "ECDSA P-256"), row("a", "ECDSA P-256", "a.example")
	none.Serving, none.Reason = false, "no DNS name"
	none.Problems = []string{"the certificate has no DNS name among its subject alternative names, which are all that clients look at"}
	a.Copies = []string{at("zcopy.pem")}
	old := row("old", "ECDSA P-256", "b.example")
	old.Serving, old.Reason = false, "superseded by "+at("new.crt")
	want := []Certificate{none, a, old,
		row("new", "ECDSA P-256", names...), row("rsa", "RSA 2048", names...),
		row("part", "ECDSA P-256", "b.example", "c.example")}
	if diff := cmp.Diff(want, f.Certificates(), cmpopts.IgnoreTypes(time.Time{})); diff != "" {
		t.Error(diff)
	}
}

// A certificate from the future is the latest, and yet supersedes nothing before its time.
func TestNotYetValid(t *testing.T) {
	now := time.Now()
	made := func(name string, from, until int) *pair {
		return &pair{
			names: []string{"a.example"}, kind: &kind{keyType: "ECDSA P-256"}, chain: &file{dir: &dir{}, name: name},
			from: now.AddDate(0, 0, from).Unix(), until: now.AddDate(0, 0, until).Unix(),
		}
	}
	future, present, past := made("future", 1, 30), made("present", -1, 20), made("past", -9, 10)
	r := &registry{Store: &Store{index: newIndex()}}
	for _, p := range []*pair{future, past, present} {
		r.index.put(p, p.chain, nil)
	}
	for p, by := range map[*pair]*pair{future: present, present: nil, past: present} {
		if got := r.index.superseded(p, now); got != by {
			t.Errorf("%s is superseded by %v", p.chain.name, got)
		}
		if complaint := r.complaint(p, now); complaint != "" {
			t.Errorf("%s: %s", p.chain.name, complaint)
		}
	}
	r.index.remove(present)
	r.index.remove(past)
	if complaint := r.complaint(future, now); !strings.Contains(complaint, "not valid before") {
		t.Errorf("alone: %q", complaint)
	}
}

// Each problem is logged once, however often files are read again, and no log line has anything of a key.
func TestProblemsAreLoggedOnce(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	dir, first, second := t.TempDir(), leafFor(t, "mail.example"), leafFor(t, "mail.example")
	must(t, first.Write(dir, "mail"))
	s := open(Options{TLS: configs.TLS{Certificates: []string{dir}}, Tickets: NewTickets(), Log: zap.New(core)}, quick)
	defer s.Close()
	f := fixture{t, s, dir}
	replace(t, filepath.Join(dir, "mail.crt"), second.ChainPEM)
	f.awaitProblem("mail.crt")
	must(t, leafFor(t, "other.example").Write(dir, "other"))
	f.await("other.example", func() bool { return f.shown("other.example") != nil })
	must(t, os.Remove(filepath.Join(dir, "other.crt")))
	f.awaitProblem("other.crt")
	if n := logs.FilterMessage("certificate problem").FilterField(zap.String("file", filepath.Join(dir, "mail.crt"))).Len(); n != 1 {
		t.Errorf("half a pair was logged %d times", n)
	}
	for _, message := range []string{"certificates loaded", "certificate loaded"} {
		if n := logs.FilterMessage(message).Len(); n != 1 {
			t.Errorf("%q was logged %d times", message, n)
		}
	}
	for _, entry := range logs.All() {
		if text := cmp.Diff(nil, entry.ContextMap()); strings.Contains(text, "-----") {
			t.Errorf("PEM in the log: %s", text)
		}
	}
}
