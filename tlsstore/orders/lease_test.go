package orders

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// inTurn has leases in one place tried by a clock of its own.
func inTurn(t *testing.T, test func(t *testing.T, path string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "acme", "lease")
	synctest.Test(t, func(t *testing.T) { test(t, path) })
}

// takes tells whether a lease can be had now.
func takes(t *testing.T, l *lease) bool {
	t.Helper()
	held, err := l.hold(t.Context(), func(context.Context) {})
	if err != nil {
		t.Error(err)
	}
	return held
}

// keeps has a lease held for a time.
func keeps(t *testing.T, l *lease, d time.Duration) (end error) {
	t.Helper()
	held, err := l.hold(t.Context(), func(ctx context.Context) {
		select {
		case <-ctx.Done():
			end = context.Cause(ctx)
		case <-time.After(d):
		}
	})
	if !held || err != nil {
		t.Errorf("the lease was not held: %v", err)
	}
	return end
}

// TestLeaseIsOneOnly: who lives has it for as long as he likes, and nobody else meanwhile.
func TestLeaseIsOneOnly(t *testing.T) {
	inTurn(t, func(t *testing.T, path string) {
		a, b := newLease(path), newLease(path)
		go func() {
			if err := keeps(t, a, time.Hour); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		for range 700 {
			if takes(t, b) {
				t.Fatalf("two have the lease after %v", time.Since(beginning))
			}
			time.Sleep(leaseRetry)
		}
		time.Sleep(time.Hour)
		if !takes(t, b) || !takes(t, a) {
			t.Error("the lease is not released")
		}
	})
}

// TestLeaseOfTheDead: who has died has it for a minute, by the clock of whoever looks.
func TestLeaseOfTheDead(t *testing.T) {
	inTurn(t, func(t *testing.T, path string) {
		keep(t, "frontend1 77 RANDOM\n12\n", path)
		must(t, os.Chtimes(path, time.Time{}, beginning.Add(100*day))) // its clock was another
		l := newLease(path)
		for since := time.Now(); !takes(t, l); time.Sleep(leaseRetry) {
			if d := time.Since(since); d > leaseStale+leaseRetry {
				t.Fatalf("not taken over after %v", d)
			}
		}
		if d := time.Since(beginning); d < leaseStale {
			t.Errorf("taken over after %v", d)
		}
	})
}

// TestLeaseThatCameBack: a lease that looks old is another's new one, if it was not watched between.
func TestLeaseThatCameBack(t *testing.T) {
	inTurn(t, func(t *testing.T, path string) {
		a, b := newLease(path), newLease(path)
		for range 3 {
			go keeps(t, a, 5*time.Second)
			synctest.Wait()
			if takes(t, b) {
				t.Error("two have the lease")
			}
			time.Sleep(time.Hour)
		}
	})
}

// TestLeaseLost: who was thought dead stops as soon as he finds out, and leaves the other's lease alone.
func TestLeaseLost(t *testing.T) {
	inTurn(t, func(t *testing.T, path string) {
		a := newLease(path)
		lost := make(chan error)
		go func() { lost <- keeps(t, a, time.Hour) }()
		synctest.Wait()
		must(t, os.Remove(path))
		keep(t, "another\n1\n", path)
		if err := <-lost; !errors.Is(err, errLeaseLost) || time.Since(beginning) > leaseBeat {
			t.Errorf("after %v: %v", time.Since(beginning), err)
		}
		if text := read(t, path); text != "another\n1\n" {
			t.Errorf("the other's lease is %q", text)
		}
	})
}

// TestLeaseNotCounted: who cannot count up stops, and says why; nobody else has the lease.
func TestLeaseNotCounted(t *testing.T) {
	inTurn(t, func(t *testing.T, path string) {
		a := newLease(path)
		f, err := a.create()
		must(t, err)
		must(t, f.Close())
		ctx, lose := context.WithCancelCause(t.Context())
		defer lose(nil)
		a.beat(ctx, f, lose)
		if err := context.Cause(ctx); !errors.Is(err, os.ErrClosed) || errors.Is(err, errLeaseLost) {
			t.Error(err)
		}
	})
}

// TestTwoFrontends: of two that share a cache one orders, and the other sees it.
func TestTwoFrontends(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		slow := func(string, string, string) error { time.Sleep(20 * time.Second); return nil }
		ca.validate = slow
		first := run(t, ca, dir, Options{}, "mail.a.example", "mail.b.example")
		second := run(t, ca, dir, Options{}, "mail.b.example", "mail.a.example")
		first.after(5 * time.Minute)
		if got := strings.Fields(ca.ordered()); len(got) != 2 {
			t.Errorf("ordered %q", got)
		}
		for _, name := range []string{"mail.a.example", "mail.b.example"} {
			if a, b := first.status(name), second.status(name); a != b || a.NotAfter.IsZero() {
				t.Errorf("they do not agree: %+v, %+v", a, b)
			}
		}
		// And so it goes when the time of renewal has come for both at once.
		first.after(64 * day)
		if got := strings.Fields(ca.ordered()); len(got) != 4 {
			t.Errorf("ordered %q", got)
		}
	})
}

// TestFrontendDies: the other one orders in its place.
func TestFrontendDies(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		keep(t, "frontend1 77 RANDOM\n12\n", dir, "lease")
		f := run(t, ca, dir, Options{}, "mail.example.net")
		f.after(leaseStale - leaseRetry)
		f.ordered("")
		f.after(3 * leaseRetry)
		f.ordered("mail.example.net")
	})
}

// TestLeaseLostInAnOrder: an order that is broken off is no failure of the name.
func TestLeaseLostInAnOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		ca.odd = func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/order") && ca.count("order") == 1 {
				keep(t, "another\n1\n", dir, "lease")
				<-r.Context().Done()
			}
			return false
		}
		f := run(t, ca, dir, Options{}, "mail.example.net")
		f.after(leaseBeat)
		f.logged(1, "order broken off")
		f.after(leaseStale + 3*leaseRetry)
		if s := f.status("mail.example.net"); s.NotAfter.IsZero() || s.Failures > 0 {
			t.Errorf("%+v", s)
		}
		f.logged(0, "not ordered")
	})
}
