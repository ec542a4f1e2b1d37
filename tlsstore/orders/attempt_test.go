package orders

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"jackdaw/configs"
)

// TestBackoff: a name that fails is tried again after a minute, two, four and so on up to a day, and logged each time once.
func TestBackoff(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		var tries []time.Time
		ca.validate = func(string, string, string) error {
			tries = append(tries, time.Now())
			return errors.New("the name leads\telse\nwhere")
		}
		f := run(t, ca, dir, Options{}, "mail.example.net")
		f.after(10 * day)
		want := time.Minute
		for i := range len(tries) - 1 {
			// A look at an authorization may be up to some seconds late.
			if got := tries[i+1].Sub(tries[i]); got < want || got > want*5/4+5*time.Second {
				t.Errorf("try %d came after %v, want about %v", i+2, got, want)
			}
			want = min(2*want, day)
		}
		if n := len(tries); n < 16 || n > 20 {
			t.Errorf("%d tries", n)
		}
		f.logged(len(tries), "certificate not ordered")
		s := f.status("mail.example.net")
		said := "answering http-01: acme: authorization error for mail.example.net: " +
			"403 urn:ietf:params:acme:error:unauthorized: the name leads?else; where"
		note := fmt.Sprintf("failed %d times, last on 2000-01-", len(tries))
		if s.Failures != len(tries) || s.Error != said || !strings.HasPrefix(s.Note(), note) {
			t.Errorf("%+v", s)
		}
		for _, field := range f.logs.FilterMessage("certificate not ordered").All()[0].Context {
			if field.Key == "error" && field.String != said {
				t.Errorf("logged %q", field.String)
			}
		}
	})
}

// TestRestartWhileFailing: who is started again and again asks the authority no more often for that.
func TestRestartWhileFailing(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		ca.validate = func(string, string, string) error { return errors.New("no") }
		for range 10 {
			run(t, ca, dir, Options{}, "mail.example.net").stop()
		}
		ca.change(func() { ca.validate = func(string, string, string) error { return nil } })
		f := run(t, ca, dir, Options{}, "mail.example.net")
		f.ordered("mail.example.net")
		f.after(75 * time.Second)
		f.ordered("mail.example.net mail.example.net")
		if s := f.status("mail.example.net"); s.Failures != 0 || s.Error != "" {
			t.Errorf("%+v", s)
		}
	})
}

// TestLook: an operator who has put things right takes the failure away, and need not wait.
func TestLook(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		ca.validate = func(string, string, string) error { return errors.New("no") }
		f := run(t, ca, dir, Options{}, "mail.example.net")
		f.after(3 * time.Hour)
		ca.change(func() { ca.validate = func(string, string, string) error { return nil } })
		must(t, os.Remove(filepath.Join(dir, failures, "mail.example.net.json")))
		f.Look()
		f.after(time.Minute) // the pause after a failure
		if s := f.status("mail.example.net"); s.NotAfter.IsZero() {
			t.Errorf("%+v", s)
		}
	})
}

// TestRateLimit: who asks us to wait is heard, but not for ever.
func TestRateLimit(t *testing.T) {
	for _, tt := range []struct {
		header   string
		from, to time.Duration
	}{
		{"7200", 2 * time.Hour, 2 * time.Hour},
		{"5", time.Minute, 75 * time.Second},
		{"", time.Minute, 75 * time.Second},
		{"Sat, 01 Jan 2000 05:00:00 GMT", 5*time.Hour - time.Minute, 5 * time.Hour},
		{"Fri, 31 Dec 1999 05:00:00 GMT", time.Minute, 75 * time.Second},
		{"9999999", 7 * day, 7 * day},
		{"soon", time.Minute, 75 * time.Second},
	} {
		inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
			ca.odd = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/order" {
					return false
				}
				w.Header().Set("Retry-After", tt.header)
				problem(w, http.StatusTooManyRequests, "rateLimited", "too many")
				return true
			}
			f := run(t, ca, dir, Options{}, "mail.example.net")
			s := f.status("mail.example.net")
			if wait := s.Next.Sub(s.Failed); wait < tt.from || wait > tt.to {
				t.Errorf("Retry-After: %s: the next try comes after %v (%s)", tt.header, wait, s.Error)
			}
			if n := ca.count("order"); n != 1 {
				t.Errorf("Retry-After: %s: the order was placed %d times", tt.header, n)
			}
		})
	}
}

// TestAuthorityDown: where the authority does not answer at all, no name waits longer than hours for it.
func TestAuthorityDown(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		well := ca.odd
		ca.odd = func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		f := run(t, ca, dir, Options{}, "mail.a.example", "mail.b.example")
		f.after(3 * day)
		ca.change(func() { ca.odd = well })
		f.after(mostUnheard*5/4 + time.Minute)
		for _, name := range []string{"mail.a.example", "mail.b.example"} {
			if s := f.status(name); s.NotAfter.IsZero() {
				t.Errorf("%+v", s)
			}
		}
	})
}

// TestUsedNonce: a nonce that the authority does not know any more is no failure (RFC 8555 section 6.5).
func TestUsedNonce(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		ca.odd = func(w http.ResponseWriter, r *http.Request) bool {
			bad := r.URL.Path == "/order" && ca.count("order")%3 != 0
			if bad {
				problem(w, http.StatusBadRequest, "badNonce", "used")
			}
			return bad
		}
		f := run(t, ca, dir, Options{}, "mail.example.net")
		f.after(10 * time.Second)
		if s := f.status("mail.example.net"); s.NotAfter.IsZero() || s.Failures > 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestBadNamesKeepNobodyWaiting: those that fail come after those that may succeed.
func TestBadNamesKeepNobodyWaiting(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		ca.validate = func(_, name, _ string) error {
			if name == "mail.good.example" {
				return nil
			}
			return errors.New("no")
		}
		var names []string
		for i := range 50 {
			names = append(names, fmt.Sprintf("mail.d%02d.example", i))
		}
		f := run(t, ca, dir, Options{Domains: []string{"good.example"}}, append(names, "mail.{domain}")...)
		f.after(3 * time.Hour)
		f.ask("mail.good.example")
		f.after(2 * time.Minute)
		if s := f.status("mail.good.example"); s.NotAfter.IsZero() {
			t.Errorf("%+v", s)
		}
	})
}

// TestPause: where one order after the other fails, the authority gets a pause that grows, whatever clients ask for.
func TestPause(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		fails := func(string, string, string) error { return errors.New("no") }
		ca.validate = fails
		o := Options{Known: func(context.Context, string, string) (bool, error) { return true, nil }}
		f := run(t, ca, dir, o, "mail.{domain}")
		for i := range 15 {
			f.ask(fmt.Sprintf("mail.d%02d.example", i))
		}
		count := func() int { return len(strings.Fields(ca.ordered())) }
		for _, want := range []int{1, 2, 2, 3, 3, 3, 3, 4} { // after a second, two more, four more
			if got := count(); got != want {
				t.Errorf("after %v: %d orders, want %d", time.Since(beginning), got, want)
			}
			f.after(time.Second)
		}
		f.after(time.Hour)
		if got := count(); got != 15 {
			t.Errorf("%d orders", got)
		}
		ca.change(func() { ca.validate = func(string, string, string) error { return nil } })
		f.ask("mail.good.example")
		ca.change(func() { ca.validate = fails })
		f.ask("mail.e1.example")
		f.after(time.Second)
		f.ask("mail.e2.example")
		if got := count(); got != 18 {
			t.Errorf("after an order that went well the pause is as long as before: %d orders", got)
		}
	})
}

// TestMostWait: how long a name waits at most depends on who has said what.
func TestMostWait(t *testing.T) {
	for _, tt := range []struct {
		err  error
		most time.Duration
	}{
		{errors.New("connection refused"), mostUnheard},
		{&acme.Error{StatusCode: 503}, mostUnheard},
		{fmt.Errorf("placing the order: %w", &acme.Error{StatusCode: 403}), mostWait},
		{&acme.OrderError{Status: "invalid"}, mostWait},
		{&acme.AuthorizationError{}, mostWait},
	} {
		for n, want := range map[int]time.Duration{1: leastWait, 3: 4 * leastWait, 1000: tt.most} {
			if got := backoff(n, tt.err); got < want || got > want*5/4 {
				t.Errorf("%v, %d times: %v, want about %v", tt.err, n, got, want)
			}
		}
	}
}

// TestOnDemandFails: what nobody asks for is not tried again.
func TestOnDemandFails(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		ca.validate = func(string, string, string) error { return errors.New("no") }
		f := run(t, ca, dir, Options{Domains: []string{"a.example"}}, "mail.{domain}")
		f.ask("mail.a.example")
		f.ask("mail.a.example")
		f.after(day)
		f.ordered("mail.a.example")
		note := "ordered when a client asks for it; failed 1 times"
		if s := f.status("mail.a.example"); !s.OnDemand || !strings.HasPrefix(s.Note(), note) {
			t.Errorf("%+v", s)
		}
		f.ask("mail.a.example")
		f.ordered("mail.a.example mail.a.example")
		f.after(forget + lookEvery)
		if list := f.Status(); len(list) != 1 {
			t.Errorf("%+v", list)
		}
		f.after(lookEvery)
		if list := f.Status(); len(list) != 0 {
			t.Errorf("not forgotten: %+v", list)
		}
	})
}

// TestChallenges: what the authority comes to see lies in the cache as long as it may come, and a second way is tried in
// turn.
func TestChallenges(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		keep(t, "of one who has died", dir, challenges, "old")
		var seen []string
		ca.validate = func(kind, name, token string) error {
			files, err := filepath.Glob(filepath.Join(dir, challenges, "*"))
			must(t, err)
			for _, file := range files {
				seen = append(seen, kind+" "+filepath.Base(file))
			}
			return errors.New("no")
		}
		o := Options{}
		o.Config.HTTP = configs.Address{Network: "tcp", Address: ":80"}
		o.Config.TLSALPN = configs.Address{Network: "tcp", Address: ":443"}
		f := run(t, ca, dir, o, "mail.example.net")
		f.after(2 * time.Minute)
		want := []string{http01 + " " + token("mail.example.net"), tlsALPN01 + " mail.example.net.pem"}
		if !slices.Equal(seen, want) {
			t.Errorf("the authority found %q, want %q", seen, want)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, challenges, "*")); left != nil {
			t.Errorf("%q are left over", left)
		}
	})
}

// TestOddAuthority: whatever the authority says, the error tells.
func TestOddAuthority(t *testing.T) {
	const authorization = "/authorization/mail.example.net"
	challenge := func(token string) map[string]any {
		return map[string]any{"status": "pending", "challenges": []any{map[string]string{
			"type": http01, "url": base + "challenge/x/http-01", "token": token, "status": "pending"}}}
	}
	for _, tt := range []struct {
		path   string
		answer any
		want   string
	}{
		{"/directory", "{", "opening the account at https://ca.example/directory: json: "},
		{"/account", "no", "opening the account at https://ca.example/directory: acme: invalid account response: "},
		{"/order", "no", "placing the order: acme: error reading order: "},
		{authorization, challenge("../../account.key"), `the authority's token "../../account.key" is none`},
		{authorization, challenge(strings.Repeat("a", 200)), "is none"},
		{authorization, map[string]string{"status": "deactivated"},
			`the authority offers [], in a state that is deactivated, and only ["http-01"] can be answered here`},
		{"/order/mail.example.net", map[string]string{"status": "invalid"}, "waiting until the order is ready: "},
		{"/certificate", "", "getting the certificate: acme: certificate chain is empty"},
	} {
		inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
			ca.odd = func(w http.ResponseWriter, r *http.Request) bool {
				odd := r.URL.Path == tt.path || tt.path == "/certificate" && strings.HasPrefix(r.URL.Path, tt.path)
				if odd {
					if r.URL.Path == "/order" {
						w.WriteHeader(http.StatusCreated)
					}
					_ = json.NewEncoder(w).Encode(tt.answer)
				}
				return odd
			}
			f := run(t, ca, dir, Options{}, "mail.example.net")
			f.after(orderLimit)
			if s := f.status("mail.example.net"); !strings.Contains(s.Error, tt.want) {
				t.Errorf("%s: %s, want %s", tt.path, s.Error, tt.want)
			}
		})
	}
}

// TestUselessCertificate: what is of no use does not replace what is.
func TestUselessCertificate(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		f := run(t, ca, dir, Options{}, "mail.example.net")
		good := read(t, dir, certificates, "mail.example.net.pem")
		ca.change(func() { ca.lifetime = -time.Hour })
		f.after(64 * day)
		if s := f.status("mail.example.net"); !strings.Contains(s.Error, "a useless certificate: it has expired on") {
			t.Errorf("%+v", s)
		}
		if read(t, dir, certificates, "mail.example.net.pem") != good {
			t.Error("the good one is gone")
		}
	})
}

// TestExpiredLongAgo: a name that the configuration asks for is never forgotten, nor what has failed.
func TestExpiredLongAgo(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		f := run(t, ca, dir, Options{}, "mail.example.net")
		ca.change(func() { ca.validate = func(string, string, string) error { return errors.New("no") } })
		f.after(200 * day)
		if s := f.status("mail.example.net"); !s.NotAfter.Equal(beginning.Add(90*day)) || s.Failures < 100 {
			t.Errorf("%+v", s)
		}
	})
}

// TestMovedAway: a name that leads elsewhere by now is tried until its certificate has expired long ago, and then forgotten.
func TestMovedAway(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		f := run(t, ca, dir, Options{Domains: []string{"a.example"}}, "mail.{domain}")
		f.ask("mail.a.example")
		ca.change(func() { ca.validate = func(string, string, string) error { return errors.New("no") } })
		f.after(100 * day)
		if s := f.status("mail.a.example"); s.OnDemand || s.Failures < 30 || s.Next.IsZero() {
			t.Errorf("%+v", s)
		}
		f.after(forget - 10*day + 2*lookEvery)
		if list := f.Status(); len(list) != 0 {
			t.Errorf("not forgotten: %+v", list)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*", "mail.a.example.*")); left != nil {
			t.Errorf("%q are left over", left)
		}
	})
}

// TestClockWasWrong: what has failed in the future keeps nobody waiting.
func TestClockWasWrong(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *fakeCA, dir string) {
		for name, last := range map[string]string{"wrong": "2040-01-01T00:00:00Z", "late": "2000-01-01T00:00:30Z"} {
			keep(t, `{"count":1,"last":"`+last+`","next":"2040-01-01T00:01:00Z"}`, dir, failures, "mail."+name+".example.json")
		}
		f := run(t, ca, dir, Options{}, "mail.wrong.example", "mail.late.example")
		f.ordered("mail.wrong.example")
	})
}
