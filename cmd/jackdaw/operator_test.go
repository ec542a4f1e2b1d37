package main

import (
	"bytes"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zapcore"

	"jackdaw/backends"
	"jackdaw/proxy"
)

// docs/admin.md has each question, and no other.
func TestQuestionsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/admin.md")
	must(t, err)
	var described []string
	for _, found := range regexp.MustCompile("(?m)^\\| `((?:GET|POST) /[a-z]+)` \\|").FindAllSubmatch(text, -1) {
		described = append(described, string(found[1]))
	}
	ofAdmin := []string{"GET /certs", "GET /metrics", "GET /missed", "GET /readyz", "POST /reload", "POST /upgrade"}
	want := slices.Concat(slices.Collect(maps.Keys(new(operator).answers())), ofAdmin)
	slices.Sort(want)
	slices.Sort(described)
	if !slices.Equal(described, want) {
		t.Errorf("described are\n%q, answered are\n%q", described, want)
	}
}

// What makes no sense is refused before any daemon is asked, with exit status 2.
func TestOperatorUsage(t *testing.T) {
	for command, want := range map[string]string{
		"kick":                    "jackdaw: say which sessions are to end\n",
		"kick --client nowhere":   `jackdaw: reading --client: "nowhere" is no network and no address` + "\n",
		"sessions --state asleep": `jackdaw: no state "asleep"; there are handshake, login, relay, delivery` + "\n",
		"sessions --totals age":   `jackdaw: no field "age" to total by; there are actor, `,
		"sessions all":            `jackdaw: sessions takes no argument "all"; whom it is about is said by flags such as --user` + "\n",
		"drain":                   "jackdaw: drain needs a BACKEND\n",
		"move anna":               "jackdaw: move needs a MEMBER\n",
		"block --for soon anna":   `jackdaw: invalid argument "soon" for "--for" flag`,
		"block 10.0.0.0/33":       `jackdaw: "10.0.0.0/33" is no network and no address` + "\n",
		"unblock 2001:db8::/129":  `jackdaw: "2001:db8::/129" is no network and no address` + "\n",
		"trace 192.0.2.300":       `jackdaw: "192.0.2.300" is no network and no address` + "\n",
		"move anna s1 s2":         `jackdaw: move takes no argument "s2"` + "\nusage: jackdaw move USER MEMBER [flags]\n",
		"block anna 10m":          `jackdaw: block takes no argument "10m"` + "\n",
		"explain anna":            `jackdaw: explain takes no argument "anna"; whom it is about is said by flags such as --user` + "\n",
		"status all":              `jackdaw: status takes no argument "all"` + "\n",
		"kick --service imap4":    `jackdaw: no service "imap4"; there are imap, imaps, `,
		"sesions":                 `jackdaw: unknown command "sesions" for "jackdaw"; did you mean sessions?` + "\n",
		"restart":                 `jackdaw: unknown command "restart" for "jackdaw"` + "\n",
	} {
		var out, errOut bytes.Buffer
		if status := run(strings.Fields(command), &out, &errOut); status != exitUsage || !strings.HasPrefix(errOut.String(), want) || out.Len() > 0 {
			t.Errorf("%s: exit status %d, %q, want %q", command, status, errOut.String(), want)
		}
	}
}

// Who looks like no network is a user, whatever else he looks like.
func TestNetworksOrUsers(t *testing.T) {
	for name, fine := range map[string]bool{
		"192.0.2.7": true, "192.0.2.0/24": true, "::1": true, "anna@a.example": true, "anna": true, "4711": true, "a/b@a.example": true,
		"192.0.2": false, "192.0.2.0/240": false, "1:2": false, "anna/24": false,
	} {
		if err := networksOrUsers(nil, []string{name}); (err == nil) != fine {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseNetwork(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "192.0.2.7/24": "192.0.2.0/24", "2001:db8::1": "2001:db8::1/128", "2001:db8::1/64": "2001:db8::/64",
		"::ffff:192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7/120": "192.0.2.0/24", "0.0.0.0/0": "0.0.0.0/0",
		"anna": "", "": "", "192.0.2.7/33": "", "::ffff:192.0.2.7/64": "",
	} {
		network, err := parseNetwork(text)
		if (err != nil) != (want == "") || err == nil && network.String() != want {
			t.Errorf("%q: %v, %v, want %q", text, network, err, want)
		}
	}
}

// Questions with words that nobody knows are not answered as if they were not there.
func TestOnly(t *testing.T) {
	for text, want := range map[string]string{
		"user=a": "", "": "", "users=a": `no condition "users"; there are user, state`, "user=a&user=b": "user is given 2 times",
	} {
		q, err := url.ParseQuery(text)
		must(t, err)
		got := ""
		if err := only(q, "user", "state"); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// Conditions that can hold for no session are questions that make no sense, whoever asks.
func TestSelection(t *testing.T) {
	for text, want := range map[string]string{
		"service=imap4":                        `no service "imap4"; there are imap, imaps, pop3, pop3s, submission, submissions, sieve, lmtp`,
		"state=asleep":                         `no state "asleep"; there are handshake, login, relay, delivery`,
		"client=here":                          `"here" is no network and no address`,
		"service=imaps&state=relay&backend=s1": "",
	} {
		q, err := url.ParseQuery(text)
		must(t, err)
		got := ""
		if _, err := new(operator).selection(q); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// Times are written as people think of them.
func TestPeriod(t *testing.T) {
	for text, want := range map[string]time.Duration{"7d": 7 * 24 * time.Hour, "0d": 0, "90m": 90 * time.Minute, "0s": 0} {
		var got period
		if err := got.Set(text); err != nil || time.Duration(got) != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "-1d", "-1s", "5", "soon", "99999999999d", "1.5d"} {
		if got := new(period); got.Set(text) == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// Another level holds for its time, over a reload, too, and the latest order counts.
func TestLogLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		level := newLogLevel()
		want := func(when string, want zapcore.Level) {
			t.Helper()
			synctest.Wait()
			if level.Level() != want {
				t.Errorf("%s: %v, want %v", when, level.Level(), want)
			}
		}
		level.configure("warn")
		level.change(zapcore.DebugLevel, time.Minute)
		want("at first", zapcore.DebugLevel)
		time.Sleep(30 * time.Second)
		level.configure("error")
		want("after a reload", zapcore.DebugLevel)
		level.change(zapcore.InfoLevel, time.Minute)
		time.Sleep(40 * time.Second)
		want("when the first order would have ended", zapcore.InfoLevel)
		time.Sleep(20 * time.Second)
		want("at the end", zapcore.ErrorLevel)
		if report := level.report(); !report.Until.IsZero() {
			t.Errorf("it tells of an end at %v", report.Until)
		}
		level.change(zapcore.DebugLevel, time.Minute)
		level.close()
		want("closed", zapcore.ErrorLevel)
	})
}

func TestBriefAndSize(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m01s", 3*time.Hour + 5*time.Minute: "3h05m", 50 * time.Hour: "2d02h",
	} {
		if got := brief(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{
		0: "0", 999: "999", 1000: "1.0K", 9940: "9.9K", 9960: "10K", 999_400: "999K", 999_600: "1.0M", 12_345_678: "12M", 5_000_000_000: "5.0G",
	} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// A table has what people look for, and nothing that would move their cursor.
func TestPrintSessions(t *testing.T) {
	now := time.Now()
	all := []listedSession{
		{1, proxy.SessionInfo{ID: "A", Service: "imaps", State: proxy.StateRelay, Client: "192.0.2.1", User: "anna\x1b[2J", Actor: "root", Backend: "s1",
			SNI: "mail.example", TLS: "TLS 1.3", Since: now.Add(-time.Hour), Moved: now.Add(-time.Minute), Sent: 12345, Received: 99}},
		{1, proxy.SessionInfo{ID: "B", Service: "imap", State: proxy.StateLogin, Client: "unix", Since: now}},
	}
	var out strings.Builder
	must(t, printSessions(&out, all, now))
	want := `ID  SERVICE  STATE  CLIENT     USER               BACKEND  SNI           TLS  FOR    IDLE   SENT  RECEIVED
A   imaps    relay  192.0.2.1  anna?[2J by root  s1       mail.example  1.3  1h00m  1m00s  12K   99
B   imap     login  unix       -                  -        -             -    0s     -      0     0
`
	squeeze := func(s string) string { return regexp.MustCompile(` +`).ReplaceAllString(s, " ") }
	if squeeze(out.String()) != squeeze(want) {
		t.Errorf("printed is\n%swant\n%s", out.String(), want)
	}
	totals := totalsOf(all, "state")
	if want := []total{{"login", 1, 0, 0}, {"relay", 1, 12345, 99}}; !slices.Equal(totals, want) {
		t.Errorf("the totals are %+v, want %+v", totals, want)
	}
}

// A dead way to a store is told, although users get there by another one.
func TestPrintDeadWay(t *testing.T) {
	dead := backends.AddressState{Address: "10.0.0.2:143", State: "down", Error: "connection\nrefused"}
	all := []backends.BackendState{{Name: "s1", Services: []backends.ServiceState{
		{Protocol: "imap", Addresses: []backends.AddressState{{Address: "10.0.0.1:143", State: "up"}, dead}},
		{Protocol: "pop3", Problem: "store is down", Addresses: []backends.AddressState{dead}},
	}}}
	var out strings.Builder
	must(t, printBackendStates(&out, all))
	want := "warning: s1, imap: 10.0.0.2:143, down: connection refused\nproblem: s1, pop3: store is down\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("printed is\n%swant\n%s", out.String(), want)
	}
}

func TestDescribeState(t *testing.T) {
	up, down, broken := backends.ServiceState{}, backends.ServiceState{Down: true, Problem: "down"}, backends.ServiceState{Problem: "accepts any password"}
	for _, test := range []struct {
		backends.BackendState
		want string
	}{
		{backends.BackendState{Services: []backends.ServiceState{up, up}}, "up"},
		{backends.BackendState{Services: []backends.ServiceState{up}, Slow: true}, "up, let in slowly"},
		{backends.BackendState{Services: []backends.ServiceState{up}, Drained: true}, "up, drained"},
		{backends.BackendState{Services: []backends.ServiceState{down, up}}, "partly up"},
		{backends.BackendState{Services: []backends.ServiceState{broken, up}}, "partly up"},
		{backends.BackendState{Services: []backends.ServiceState{broken, down}}, "unusable"},
		{backends.BackendState{Services: []backends.ServiceState{down, down}, Drained: true}, "down, drained"},
	} {
		if got := describeState(test.BackendState); got != test.want {
			t.Errorf("%+v: %q, want %q", test.BackendState, got, test.want)
		}
	}
}
