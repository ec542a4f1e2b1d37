package proxy

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"jackdaw/backends"
	"jackdaw/configs"
)

// many are sessions that note when they are told to end.
func many(n int) (all *sessions, ended *[]time.Duration) {
	all, ended = new(sessions), new([]time.Duration)
	begun := time.Now()
	for range n {
		all.enter(&session{cancel: func(error) { *ended = append(*ended, time.Since(begun)) }})
	}
	return all, ended
}

// Sessions end evenly over the time that there is for that.
func TestEndSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, ended := many(1000)
		all.end(t.Context(), 100*time.Second, errShutdown)
		if len(*ended) != 1000 || (*ended)[0] != 0 {
			t.Fatalf("%d have ended, the first after %v", len(*ended), (*ended)[0])
		}
		for i, after := range *ended {
			want := time.Duration(i) * 100 * time.Millisecond
			if early := want - after; early > shortSpell || early < 0 {
				t.Errorf("number %d ends after %v, want %v", i, after, want)
			}
		}
	})
}

// Without time all end at once; when somebody breaks it off the rest go on.
func TestEndAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, ended := many(1000)
		all.end(t.Context(), 0, errShutdown)
		if len(*ended) != 1000 || (*ended)[999] != 0 {
			t.Errorf("%d have ended, the last after %v", len(*ended), (*ended)[len(*ended)-1])
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
		defer cancel()
		all, ended = many(1000)
		all.end(ctx, 100*time.Second, errShutdown)
		if n := len(*ended); n < 490 || n > 510 {
			t.Errorf("%d have ended in half of the time", n)
		}
	})
}

// listed is a server's one session, as soon as it is in a state.
func (p *player) listed(state SessionState) SessionInfo {
	p.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		all := slices.Collect(p.server.Sessions(Selection{}))
		if len(all) == 1 && all[0].State == state {
			return all[0]
		}
		if time.Now().After(end) {
			p.fail("the sessions are %+v, want one in state %s", all, state)
		}
	}
}

// A session is known from its first moment to its last, and more of it with each step.
func TestSessionIsListed(t *testing.T) {
	p := newPlayer(t)
	p.play("TestSessionIsListed", `# A client that begins.
= service imaps
= impersonate_from 127.0.0.0/8
= store * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] store1 ready
= begin
`)
	first := p.listed(StateHandshake)
	if len(first.ID) != 16 || first.Client != "127.0.0.1" || first.Service != "imaps" || first.Listener != "imap" || first.Certificate != "" {
		t.Errorf("at first: %+v", first)
	}
	p.play("TestSessionIsListed", `# TLS, and a wrong password.
C* starttls mail.example.org
S* * OK
C: a LOGIN bob secret
	B: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] store1 ready
	P: J3 AUTHENTICATE PLAIN base64(\x00bob\x00secret)
	B: J3 NO wrong
	P* closed
S* a NO
`)
	got := p.listed(StateLogin)
	want := first
	want.State, want.SNI, want.Certificate, want.TLS = StateLogin, "mail.example.org", "mail.example.org", "TLS 1.3"
	want.User, want.Backend, want.Mechanism = "bob", "store1", "PLAIN"
	if got != want {
		t.Errorf("before the login: %+v\nwant %+v", got, want)
	}
	p.play("TestSessionIsListed", `# The right one.
C: b LOGIN alice*master secret
	B: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] store1 ready
	P: J3 AUTHENTICATE PLAIN base64(\x00alice*master\x00secret)
	B: J3 OK [CAPABILITY IMAP4rev1] in
S* b OK
C: c NOOP
	P: c NOOP
	B: c OK
S: c OK
`)
	got = p.listed(StateRelay)
	want.State, want.User, want.Actor, want.Sent, want.Received, want.Moved = StateRelay, "alice", "master", 6, 8, got.Moved
	if got != want || got.Moved.Before(got.Since) {
		t.Errorf("after the login: %+v\nwant %+v", got, want)
	}
	server := p.server
	p.end()
	if all := slices.Collect(server.Sessions(Selection{})); len(all) != 0 {
		t.Errorf("at the end there are %+v", all)
	}
}

// Each condition chooses, and all must hold.
func TestSelection(t *testing.T) {
	session := SessionInfo{ID: "A", Service: "imaps", Client: "192.0.2.1", User: "anna", Actor: "root", Backend: "store1", State: StateRelay}
	unix := SessionInfo{Client: "unix"}
	for _, test := range []struct {
		Selection
		session SessionInfo
		want    bool
	}{
		{Selection{}, session, true},
		{Selection{}, unix, true},
		{Selection{ID: "A", Service: "imaps", User: "anna", Backend: "store1", State: StateRelay}, session, true},
		{Selection{User: "root"}, session, true},
		{Selection{User: "anna", Backend: "store2"}, session, false},
		{Selection{User: "ann"}, session, false},
		{Selection{ID: "B"}, session, false},
		{Selection{State: StateLogin}, session, false},
		{Selection{Service: "imap"}, session, false},
		{Selection{Client: netip.MustParsePrefix("192.0.2.0/24")}, session, true},
		{Selection{Client: netip.MustParsePrefix("198.51.100.0/24")}, session, false},
		{Selection{Client: netip.MustParsePrefix("0.0.0.0/0")}, unix, false},
		{Selection{Client: netip.MustParsePrefix("fe80::/64")}, SessionInfo{Client: "fe80::1%eth0"}, true},
	} {
		if got := test.Has(test.session); got != test.want {
			t.Errorf("%+v of %+v: %v", test.Selection, test.session, got)
		}
	}
}

// Whom the administrator ends hears that before the login, and nobody else does.
func TestKickBeforeLogin(t *testing.T) {
	for service, words := range map[string]string{
		"imap": "* BYE Session ended by the administrator", "sieve": `BYE "Session ended by the administrator"`,
		"submission": "421 4.7.0 Session ended by the administrator", "lmtp": "421 4.7.0 Session ended by the administrator",
		"pop3": "", // which has no word for it
	} {
		t.Run(service, func(t *testing.T) {
			state := StateLogin
			if service == "lmtp" {
				state = StateDelivery
			}
			p := newPlayer(t)
			p.play("TestKick", "# A client that waits.\n= service "+service+"\n= begin\n")
			if _, err := p.read.Peek(1); err != nil { // it is greeted
				t.Fatal(err)
			}
			session := p.listed(state)
			if n := p.server.Kick(Selection{ID: "other"}, ErrKicked); n != 0 {
				t.Errorf("%d of others are ended", n)
			}
			if n := p.server.Kick(Selection{ID: session.ID}, ErrKicked); n != 1 {
				t.Errorf("%d are ended", n)
			}
			if words != "" {
				words = "S* " + words + "\n"
			} else if _, err := p.read.ReadString('\n'); err != nil { // the greeting
				t.Fatal(err)
			}
			p.play("TestKick", "# And hears the end.\n"+words+"C* closed\n")
			p.end()
		})
	}
}

// Whom the administrator ends hears that after the login, too.
func TestKickUser(t *testing.T) {
	p := newPlayer(t)
	p.play("testdata/imap/kick", "# A client that is in.\n= after login\n")
	p.listed(StateRelay)
	p.server.Kick(Selection{User: "alice"}, ErrKicked)
	p.play("TestKick", "# It hears the end.\nS: * BYE Session ended by the administrator\nC* closed\nL~ \"reason\":\"ended by the administrator\"\n")
	p.end()
}

// Who is to come back in a moment hears that, where a protocol has a word for it.
func TestMovedBye(t *testing.T) {
	for service, want := range map[configs.Service]string{
		configs.IMAP: "* BYE Mailbox has moved, try again\r\n", configs.POP3: "",
		configs.Submission: "421 4.3.2 Mailbox has moved, try again\r\n",
		configs.Sieve:      "BYE (TRYLATER) \"Mailbox has moved, try again\"\r\n",
	} {
		reason, ok := farewell(backends.ErrMoved)
		if said := protocols[service].bye(reason); !ok || said != want {
			t.Errorf("%s: %q, want %q", service, said, want)
		}
	}
}
