package orders

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestOrderAndRenewal: a name is ordered at start, and again when a third of the lifetime is left, and never between.
func TestOrderAndRenewal(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		f := run(t, ca, dir, Options{}, "mail.example.net")
		f.ordered("mail.example.net")
		s := f.status("mail.example.net")
		if s.By != "mail.example.net" || !s.NotAfter.Equal(beginning.Add(90*day)) || s.Note() != "" {
			t.Errorf("%+v", s)
		}
		f.after(60*day - time.Second)
		f.ordered("mail.example.net")
		f.after(3*day + 2*time.Second)
		f.ordered("mail.example.net mail.example.net")
		f.after(56 * day)
		f.ordered("mail.example.net mail.example.net")
		f.logged(2, "certificate ordered")
	})
}

// TestRestart: who finds a valid certificate in the cache says nothing to the authority.
func TestRestart(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		run(t, ca, dir, Options{}, "mail.example.net").stop()
		before := ca.count("directory")
		f := run(t, ca, dir, Options{}, "mail.example.net")
		f.after(50 * day)
		if n := ca.count("directory"); n != before {
			t.Errorf("the authority was visited %d times more", n-before)
		}
	})
}

// TestFiles: what lies in the cache is for ourselves alone, keys of certificates are new each time, the account's stays.
func TestFiles(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		f := run(t, ca, dir, Options{}, "mail.example.net")
		account, pair := read(t, dir, "account.key"), read(t, dir, certificates, "mail.example.net.pem")
		f.after(63 * day)
		if account != read(t, dir, "account.key") || len(ca.accounts) != 1 {
			t.Error("there is another account")
		}
		renewed := read(t, dir, certificates, "mail.example.net.pem")
		if key(pair) == key(renewed) {
			t.Error("the key is the same")
		}
		must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			must(t, err)
			info, err := entry.Info()
			must(t, err)
			if want := map[bool]fs.FileMode{true: fs.ModeDir | 0o700, false: 0o600}[entry.IsDir()]; info.Mode() != want {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return nil
		}))
		for _, gone := range []string{"lease", "challenges/*", "failures/*", "*/.*"} {
			if left, _ := filepath.Glob(filepath.Join(dir, gone)); left != nil {
				t.Errorf("%q are left over", left)
			}
		}
	})
}

func read(t *testing.T, parts ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	must(t, err)
	return string(data)
}

func key(pair string) string { return pair[strings.Index(pair, "-----BEGIN PRIVATE KEY"):] }

// TestAccount: the authority hears an address and a binding once, and the account stays.
func TestAccount(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		ca.binding = `"kid":"kid-1"`
		o := Options{}
		o.Config.Email = "postmaster@example.net"
		f := run(t, ca, dir, o, "mail.example.net")
		if s := f.status("mail.example.net"); !strings.Contains(s.Error, "the account is not bound") {
			t.Errorf("%+v", s)
		}
		f.stop()
		o.Config.EABKid, o.Config.EABKey = "kid-1", "c2VjcmV0"
		f = run(t, ca, dir, o, "mail.example.net")
		f.after(63 * day)
		f.ordered("mail.example.net mail.example.net")
		for _, account := range ca.accounts {
			if account != base+"account/0 [mailto:postmaster@example.net]" {
				t.Errorf("the account is %q", account)
			}
		}
	})
}

// TestHeld: nothing is ordered for what others have a certificate for, until they have not.
func TestHeld(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		var days atomic.Int32
		days.Store(1)
		held := func(name string) bool {
			until := beginning.Add(time.Duration(days.Load()) * day)
			return name == "mail.example.net" && time.Now().Before(until)
		}
		f := run(t, ca, dir, Options{Held: held}, "mail.example.net")
		if s := f.status("mail.example.net"); !s.Held || !s.Next.IsZero() {
			t.Errorf("%+v", s)
		}
		f.after(day - time.Second)
		f.ordered("")
		f.after(lookEvery)
		f.ordered("mail.example.net")
		days.Store(365)
		f.after(200 * day)
		f.ordered("mail.example.net")
	})
}

// TestOnDemand: names of known domains are ordered when a client asks, and then kept.
func TestOnDemand(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		o := Options{Domains: []string{"a.example", "b.example"}}
		f := run(t, ca, dir, o, "mail.{domain}", "{domain}")
		f.ask("mail.c.example", "imap.a.example", "mail.sub.a.example")
		f.ask("", "mail.", "mail.a.example.", "*.a.example", "mail.a.example/../b")
		f.ordered("")
		f.ask("Mail.A.example", "mail.a.example")
		f.ask("mail.a.example")
		f.ordered("mail.a.example")
		if s := f.status("mail.a.example"); s.By != "mail.{domain}" {
			t.Errorf("%+v", s)
		}
		f.ask("b.example")
		f.ordered("mail.a.example b.example")
		f.stop()

		// From then on they are renewed as long as their domain is known.
		f = run(t, ca, dir, Options{Domains: []string{"a.example"}}, "mail.{domain}", "{domain}")
		f.after(63 * day)
		f.ordered("mail.a.example b.example mail.a.example")
		if s := f.status("b.example"); s.By != "" || !strings.Contains(s.Note(), "in no names of the configuration") {
			t.Errorf("%+v", s)
		}
		f.after(90*day + forget - 63*day + lookEvery)
		if _, err := os.Stat(filepath.Join(dir, certificates, "b.example.pem")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a certificate that nobody wants is still there (%v)", err)
		}
	})
}

// TestKnown: a directory is asked in the background, by domain and name, and when it cannot answer nothing is ordered.
func TestKnown(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		var down atomic.Bool
		asked := make(chan string, 10000)
		o := Options{Known: func(_ context.Context, domain, sni string) (bool, error) {
			asked <- domain + " for " + sni
			if down.Load() {
				return false, errors.New("the directory is down")
			}
			return domain == "a.example", nil
		}}
		down.Store(true)
		f := run(t, ca, dir, o, "mail.{domain}")
		f.ask("mail.a.example")
		f.ordered("")
		f.logged(1, "a certificate may be wanted or not")
		down.Store(false)
		f.ask("mail.b.example")
		f.ask("mail.a.example")
		f.ordered("mail.a.example")
		for _, domain := range []string{"a.example", "b.example", "a.example"} {
			if got := <-asked; got != domain+" for mail."+domain {
				t.Errorf("asked: %s", got)
			}
		}
		// A name that has a certificate is kept while nobody can say whether it is wanted.
		down.Store(true)
		f.after(63 * day)
		f.ordered("mail.a.example mail.a.example")
		f.logged(1, "problem with the cache")
	})
}

// TestNewNamesInAnHour: clients cannot make us order as much as they like.
func TestNewNamesInAnHour(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		var names []string
		for i := range 2 * maxNewNames {
			names = append(names, fmt.Sprintf("mail.d%02d.example", i))
		}
		everybody := func(context.Context, string, string) (bool, error) { return true, nil }
		f := run(t, ca, dir, Options{Known: everybody}, "mail.{domain}")
		count := func() int { return len(strings.Fields(ca.ordered())) }
		f.ask(names...)
		if f.after(time.Minute); count() != maxNewNames {
			t.Errorf("%d names were ordered", count())
		}
		f.logged(1, "clients ask for more new names")
		f.after(58 * time.Minute)
		f.ask(names...)
		if count() != maxNewNames {
			t.Errorf("%d names were ordered within the hour", count())
		}
		f.after(time.Minute)
		f.ask(names...)
		if count() != 2*maxNewNames {
			t.Errorf("%d names were ordered after it", count())
		}
	})
}

// TestAskIsBounded: however many names are asked for while nobody looks, they cost no more than so much.
func TestAskIsBounded(t *testing.T) {
	m := newManager(Options{Known: knows()})
	m.wishes.patterns = []pattern{{"mail.{domain}", "mail.", ""}}
	for i := range 2 * maxAsked {
		m.Ask(fmt.Sprintf("mail.d%d.example", i))
	}
	if len(m.asked) != maxAsked {
		t.Errorf("%d names wait", len(m.asked))
	}
	m = newManager(Options{Domains: []string{"a.example"}})
	m.wishes.patterns = []pattern{{"mail{domain}", "mail", ""}}
	m.Ask("mail")
	m.Ask("maile.example")
	m.Ask("a.example")
	if _, ok := m.wishes.patterns[0].domain("mail"); ok || len(m.asked) > 0 {
		t.Errorf("names wait that fit no pattern: %v", m.asked)
	}
}

// TestAskWhileBusy: what a client has asked for is not forgotten while another name is being ordered, or the cache is looked
// at.
func TestAskWhileBusy(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		keep(t, "another's\n1\n", dir, "lease")
		keep(t, `{"count":1,"last":"1999-12-31T23:58:00Z","next":"1999-12-31T23:59:00Z"}`, dir, failures, "mail.b.example.json")
		f := run(t, ca, dir, Options{Domains: []string{"a.example", "b.example"}}, "mail.{domain}")
		f.ask("mail.a.example")
		f.ask("mail.b.example")
		f.Look()
		f.after(leaseStale + 3*leaseRetry)
		f.ordered("mail.a.example mail.b.example")
	})
}

// TestSilentDirectory: one that does not answer keeps no name from its renewal.
func TestSilentDirectory(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		o := Options{Known: knows("a.example", "b.example")}
		f := run(t, ca, dir, o, "mail.{domain}")
		f.ask("mail.a.example")
		f.ask("mail.b.example")
		f.stop()
		o.Known = func(ctx context.Context, _, _ string) (bool, error) {
			<-ctx.Done()
			return false, ctx.Err()
		}
		f = run(t, ca, dir, o, "mail.{domain}")
		f.ask("mail.c.example")
		f.after(64 * day)
		if got := strings.Fields(ca.ordered()); len(got) != 4 {
			t.Errorf("ordered %q", got)
		}
	})
}

// TestProvenBefore: an authority that remembers a name need not come and see.
func TestProvenBefore(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		ca.reminded = true
		f := run(t, ca, dir, Options{}, "mail.example.net")
		f.ordered("mail.example.net")
		if s := f.status("mail.example.net"); s.NotAfter.IsZero() || ca.count("challenge") > 0 {
			t.Errorf("%d challenges, %+v", ca.count("challenge"), s)
		}
	})
}

// TestClose: an authority that says nothing keeps nobody from going.
func TestClose(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		for _, part := range []string{"directory", "account", "order", "authorization", "certificate"} {
			ca.change(func() {
				ca.odd = func(_ http.ResponseWriter, r *http.Request) bool {
					if strings.HasPrefix(r.URL.Path, "/"+part) {
						<-r.Context().Done()
					}
					return false
				}
			})
			f := run(t, ca, filepath.Join(dir, part), Options{}, "mail.example.net")
			before := time.Now()
			f.stop()
			if d := time.Since(before); d > 0 {
				t.Errorf("%s: it took %v", part, d)
			}
			f.logged(0, "not ordered")
			for _, left := range []string{failures, "lease"} {
				if _, err := os.Stat(filepath.Join(dir, part, left)); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: %s is left over (%v)", part, left, err)
				}
			}
		}
		synctest.Wait()
	})
}

// TestSilentAuthority: an order ends, however long the authority takes.
func TestSilentAuthority(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		ca.odd = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, "/authorization") {
				return false
			}
			w.Header().Set("Retry-After", "86400")
			reply(w, 200, map[string]any{"status": "pending", "challenges": []any{map[string]any{
				"type": http01, "url": base + "challenge/mail.example.net/http-01", "token": "token", "status": "pending"}}})
			return true
		}
		f := run(t, ca, dir, Options{}, "mail.example.net")
		f.after(orderLimit)
		if s := f.status("mail.example.net"); !strings.HasPrefix(s.Error, "not done after 5m0s: answering http-01: ") {
			t.Errorf("%+v", s)
		}
		if n := ca.count("authorization"); n < 20 {
			t.Errorf("the authority was asked only %d times what has come of it", n)
		}
	})
}
