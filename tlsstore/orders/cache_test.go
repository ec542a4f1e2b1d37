package orders

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestBrokenCertificate: it is reported, and ordered anew.
func TestBrokenCertificate(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		other := run(t, ca, filepath.Join(dir, "other"), Options{}, "mail.b.example")
		other.stop()
		keep(t, "-----BEGIN CERT", dir, certificates, "mail.a.example.pem")
		keep(t, read(t, dir, "other", certificates, "mail.b.example.pem"), dir, certificates, "mail.example.net.pem")
		keep(t, "{", dir, failures, "mail.a.example.json")
		keep(t, "what somebody has left here", dir, certificates, "Mail.A.example.pem")
		f := run(t, ca, dir, Options{}, "mail.a.example", "mail.example.net")
		f.after(time.Minute)
		for _, name := range []string{"mail.a.example", "mail.example.net"} {
			if s := f.status(name); s.NotAfter.IsZero() || s.Problem != "" {
				t.Errorf("%+v", s)
			}
		}
		if list := f.Status(); len(list) != 2 {
			t.Errorf("%+v", list)
		}
		f.logged(1, "problem with the cache")
		said := f.logs.FilterMessageSnippet("problem with the cache").All()[0].Context[0].String
		for _, want := range []string{
			"mail.a.example.pem: tls: failed to find any PEM data in certificate input; reading ",
			"mail.a.example.json: unexpected end",
			"mail.example.net.pem: x509: certificate is valid for mail.b.example, not mail.example.net",
		} {
			if !strings.Contains(said, want) {
				t.Errorf("%q does not say %q", said, want)
			}
		}
	})
}

// TestUnreadable: what is there and cannot be read is reported, and not ordered until it can.
func TestUnreadable(t *testing.T) {
	for _, part := range []string{filepath.Join(certificates, "mail.example.net.pem"), filepath.Join(failures, "mail.example.net.json")} {
		inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
			path := filepath.Join(dir, part)
			must(t, os.MkdirAll(path, 0o700)) // a directory, which not even root can read as a file
			f := run(t, ca, dir, Options{}, "mail.example.net")
			f.after(day)
			f.ordered("")
			if s := f.status("mail.example.net"); !s.Next.IsZero() || !strings.Contains(s.Problem, path) {
				t.Errorf("%+v", s)
			}
			must(t, os.Remove(path))
			f.after(lookEvery)
			f.ordered("mail.example.net")
		})
	}
}

// TestBrokenAccountKey: it is left alone, whatever else must wait.
func TestBrokenAccountKey(t *testing.T) {
	rsaKey := "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"
	for _, broken := range []string{"", "no key", rsaKey} {
		inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
			keep(t, broken, dir, "account.key")
			f := run(t, ca, dir, Options{}, "mail.example.net")
			if s := f.status("mail.example.net"); !strings.HasPrefix(s.Error, "reading the account's key") {
				t.Errorf("%+v", s)
			}
			f.after(day)
			if text := read(t, dir, "account.key"); text != broken || ca.count("directory") > 0 {
				t.Errorf("the key is %q", text)
			}
		})
	}
}

// TestUselessCache: where nothing can be kept nothing is ordered, and that is said once.
func TestUselessCache(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		keep(t, "a file", dir)
		f := run(t, ca, dir, Options{}, "mail.example.net")
		f.after(day)
		if s := f.status("mail.example.net"); !strings.Contains(s.Problem, "not a directory") || ca.count("directory") > 0 {
			t.Errorf("%+v", s)
		}
		f.logged(1, "problem with the cache")
		must(t, os.Remove(dir))
		f.after(lookEvery)
		f.ordered("mail.example.net")
	})
}

// TestFailuresThatCannotBeKept: they are remembered all the same, as long as we live.
func TestFailuresThatCannotBeKept(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		must(t, os.MkdirAll(dir, 0o700))
		must(t, os.Symlink("nowhere", filepath.Join(dir, failures)))
		ca.validate = func(string, string, string) error { return errors.New("no") }
		f := run(t, ca, dir, Options{}, "mail.example.net")
		f.after(day)
		if n := f.status("mail.example.net").Failures; n < 9 || n > 12 {
			t.Errorf("%d tries", n)
		}
		for _, entry := range f.logs.FilterMessage("certificate not ordered").All() {
			if text, _ := entry.ContextMap()["not_remembered"].(string); !strings.Contains(text, filepath.Join(dir, failures)) {
				t.Errorf("logged %+v", entry.ContextMap())
			}
		}
		ca.change(func() { ca.validate = func(string, string, string) error { return nil } })
		f.after(day * 5 / 4)
		if s := f.status("mail.example.net"); s.NotAfter.IsZero() || s.Failures > 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestRead: whoever looks at the cache sees what the manager does, and changes nothing.
func TestRead(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		ca.validate = func(_, name, _ string) error {
			if name == "mail.b.example" {
				return os.ErrPermission
			}
			return nil
		}
		o := Options{Domains: []string{"a.example", "b.example"}}
		f := run(t, ca, dir, o, "mail.example.net", "mail.{domain}")
		f.ask("mail.a.example", "mail.b.example")
		f.after(lookEvery)
		want := f.Status()
		f.stop()
		o.Config = f.Config
		got, err := Read(t.Context(), o)
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" || len(want) != 3 {
			t.Errorf("-want +got:\n%s", diff)
		}
		o.Config.Cache = filepath.Join(dir, "none")
		if got, err = Read(t.Context(), o); err != nil || len(got) != 1 || !got[0].Next.Equal(time.Now()) {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := os.Stat(o.Config.Cache); err == nil {
			t.Error("a directory was made")
		}
	})
}

// TestPlace: a file comes complete, from under a hidden name, and nothing is left where it cannot come.
func TestPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "file")
	must(t, place(path, []byte("text"), func(from, to string) error {
		if info, err := os.Stat(from); err != nil || info.Mode() != 0o600 || read(t, from) != "text" {
			t.Errorf("%s is %v, %v", from, info, err)
		}
		if filepath.Dir(from) != filepath.Dir(to) || !strings.HasPrefix(filepath.Base(from), ".") {
			t.Errorf("%s is made from %s", to, from)
		}
		return os.Rename(from, to)
	}))
	if err := place(path, []byte("other"), os.Link); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); left != nil || read(t, path) != "text" {
		t.Errorf("%q are left over, and the file is %q", left, read(t, path))
	}
}

// TestAccountKeyOfAnother: who finds that another frontend has made a key meanwhile does not replace it.
func TestAccountKeyOfAnother(t *testing.T) {
	c := newCache(t.TempDir())
	keep(t, "another's", c.path("account.key"))
	if _, err := c.newAccountKey(c.path("account.key")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if text := read(t, c.path("account.key")); text != "another's" {
		t.Errorf("the key is %q", text)
	}
}
