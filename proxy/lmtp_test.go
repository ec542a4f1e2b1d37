package proxy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// A message goes to all of its stores, to each with its own recipients, and the verdicts come in the order of the recipients.
func TestFanOut(t *testing.T) {
	one, two, three := newLMTPStore(t, "store1", nil), newLMTPStore(t, "store2", map[string]string{
		"RCPT TO:<no@": "550 5.1.1 nobody here", "end 1": "452 4.2.2 full"}), newLMTPStore(t, "store3", nil)
	m := newMailer(t, unchanged, one, two, three)
	for range 3 { // the second and the third over the same connections
		m.says("MAIL FROM:<bob@b.example> BODY=8BITMIME\r\n")
		m.hears("250 2.1.0 ")
		for _, to := range []string{"c@store2", "a@store1", "no@store2", "x@store4", "b@store2", "a@store1", "d@store3"} {
			m.says("RCPT TO:<" + to + ".example>\r\n")
			switch to {
			case "no@store2":
				m.hears("550 5.1.1 nobody here")
			case "x@store4":
				m.hears("550 5.1.1 No such mailbox here")
			default:
				m.hears("250 2.1.5 OK")
			}
		}
		m.sends("DATA", "354 ")
		m.says(letter1)
		m.hears("250 2.0.0 TO:<c@store2.example> by store2", "250 2.0.0 TO:<a@store1.example> by store1", "452 4.2.2 full",
			"250 2.0.0 TO:<a@store1.example> by store1", "250 2.0.0 TO:<d@store3.example> by store3")
	}
	m.closes()
	for s, to := range map[*lmtpStore]string{
		one: "TO:<a@store1.example> TO:<a@store1.example>", two: "TO:<c@store2.example>", three: "TO:<d@store3.example>",
	} {
		got := s.got()
		if len(got) != 3 || s.quits != 2 { // one was from who came to ask what the store can do
			t.Fatalf("%s has %d messages and %d goodbyes", s.name, len(got), s.quits)
		}
		for _, mail := range got {
			if mail.from != "FROM:<bob@b.example> BODY=8BITMIME" || strings.Join(mail.to, " ") != to ||
				mail.sum != sha256.Sum256([]byte(letter1)) {
				t.Errorf("%s has %+v", s.name, mail)
			}
		}
	}
	if lines := m.logged("delivery"); len(lines) != 9 {
		t.Errorf("the log has %d deliveries", len(lines))
	}
	if lines := m.logged("recipient refused"); len(lines) != 3 || lines[0]["recipient"] != "<x@store4.example>" {
		t.Errorf("the log has %v", lines)
	}
	lines := m.logged("session")
	if len(lines) != 1 || lines[0]["messages"] != 3.0 || lines[0]["received"] != float64(3*len(letter1)) ||
		lines[0]["reason"] != "client left" {
		t.Errorf("the log has %v", lines)
	}
}

// Whatever happens to a store, and whenever, its recipients' mail comes again, and that of others is delivered.
func TestStoreFails(t *testing.T) {
	for _, test := range []struct {
		what, when, how string
		rcpt, verdict   string // for the two recipients; verdict is "" where nobody is accepted
	}{
		{"greeting", "greeting", "drop", "451 4.4.1|451 4.4.1", ""},
		{"greeting refuses", "greeting", "554 5.3.2 go away", "451 4.3.0|451 4.3.0", ""},
		{"LHLO", "LHLO", "drop", "451 4.4.1|451 4.4.1", ""},
		{"LHLO refused", "LHLO", "500 what", "451 4.3.0|451 4.3.0", ""},
		{"MAIL", "MAIL", "drop", "451 4.4.1|451 4.4.1", ""},
		{"MAIL refused", "MAIL", "550 5.7.1 not from you", "550 5.7.1 not|550 5.7.1 not", ""},
		{"MAIL refused for now", "MAIL", "450 later", "450 4.0.0 later|450 4.0.0 later", ""},
		{"MAIL nonsense", "MAIL", "hello", "451 4.4.1|451 4.4.1", ""},
		{"MAIL asks for data", "MAIL", "354 go on", "451 4.3.0|451 4.3.0", ""},
		{"MAIL needs authentication", "MAIL", "430 Authentication required", "451 4.3.0|451 4.3.0", ""},
		{"RCPT", "RCPT", "drop", "451 4.4.2|451 4.4.2", ""},
		{"second RCPT", "RCPT TO:<b@", "drop", "250|451 4.4.2", "451 4.4.2"},
		{"RCPT refused", "RCPT TO:<b@", "550 no", "250|550 5.0.0 no", "250"},
		{"RCPT closes", "RCPT TO:<b@", "421 4.3.2 bye", "250|451 4.3.0", "451 4.3.0"},
		{"RCPT not understood", "RCPT TO:<b@", "555 5.5.4 what", "250|451 4.3.0", "250"},
		{"RCPT asks for data", "RCPT TO:<b@", "354 go on", "250|451 4.3.0", "451 4.3.0"},
		{"DATA", "DATA", "drop", "250|250", "451 4.4.2|451 4.4.2"},
		{"DATA refused", "DATA", "554 5.6.0 no", "250|250", "554 5.6.0 no|554 5.6.0 no"},
		{"DATA not understood", "DATA", "503 5.5.1 no", "250|250", "451 4.3.0|451 4.3.0"},
		{"DATA said to be done", "DATA", "250 2.0.0 done", "250|250", "451 4.3.0|451 4.3.0"},
		{"data", "in data", "drop", "250|250", "451 4.4.2|451 4.4.2"},
		{"end", "end 0", "drop", "250|250", "451 4.4.2|451 4.4.2"},
		{"end refused", "end 0", "552 5.2.2 full", "250|250", "552 5.2.2 full|250"},
		{"second end", "end 1", "drop", "250|250", "250|451 4.4.2"},
		{"end nonsense", "end", "354 more", "250|250", "451 4.3.0|451 4.3.0"},
		{"end closes", "end 1", "421 4.3.2 bye", "250|250", "250|451 4.3.0"},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			good, bad := newLMTPStore(t, "store1", nil), newLMTPStore(t, "store2", nil)
			m := newMailer(t, unchanged, good, bad)
			if test.what != "data" {
				bad.set(test.when, test.how) // after it was asked for its capabilities
			} else {
				bad.set("in data", "")
			}
			heard := strings.Split(test.rcpt, "|")
			m.sends("MAIL FROM:<bob@b.example>", "250", "RCPT TO:<x@store1.example>", "250", "RCPT TO:<a@store2.example>", heard[0],
				"RCPT TO:<b@store2.example>", heard[1], "RCPT TO:<y@store1.example>", "250", "DATA", "354")
			body := letter1
			if test.what == "data" {
				body = strings.Repeat("x", 1<<20) + "\r\n.\r\n" // more than fits into the store's socket
			}
			m.says(body)
			m.hears("250 2.0.0 TO:<x@store1.example> by store1")
			if test.verdict != "" {
				m.hears(strings.Split(test.verdict, "|")...)
			}
			m.hears("250 2.0.0 TO:<y@store1.example> by store1")
			for _, mail := range bad.got() {
				if len(mail.to) > strings.Count("|"+test.verdict, "|250") {
					t.Errorf("the store has acknowledged %+v", mail)
				}
			}
			m.sends("RSET", "250") // by now all is logged
			if lines := m.logged("delivery"); len(lines) != 2 {
				t.Errorf("the log has %v", lines)
			}
			// The next message finds a store that is well again.
			bad.mu.Lock()
			bad.answers = map[string]string{}
			bad.mu.Unlock()
			m.begins("a@store2.example", "x@store1.example")
			m.says(letter1)
			m.hears("250", "250")
		})
	}
}

// A store that nobody can reach spoils its own recipients' mail.
func TestStoreDown(t *testing.T) {
	good, bad := newLMTPStore(t, "store1", nil), newLMTPStore(t, "store2", nil)
	m := newMailer(t, unchanged, good, bad)
	bad.down()
	m.says("MAIL FROM:<>\r\n")
	m.hears("250")
	m.says("RCPT TO:<a@store2.example>\r\nRCPT TO:<b@store1.example>\r\nRCPT TO:<c@store2.example>\r\nDATA\r\n")
	m.hears("451 4.4.1 Store cannot be reached", "250", "451 4.4.1 Store cannot be reached", "354")
	m.says(letter1)
	m.hears("250 2.0.0 TO:<b@store1.example> by store1")
	m.sends("RSET", "250")
	for _, line := range m.logged("delivery") {
		if (line["level"] == "warn") != (line["backend"] == "store2") {
			t.Error(line)
		}
		if line["backend"] == "store2" && (fmt.Sprint(line["users"]) != "[a@store2.example c@store2.example]" ||
			fmt.Sprint(line["codes"]) != "[451 451]" || !strings.Contains(fmt.Sprint(line["error"]), "connecting to unix:")) {
			t.Error(line)
		}
		if line["backend"] == "store1" && (fmt.Sprint(line["users"]) != "[b@store1.example]" ||
			fmt.Sprint(line["codes"]) != "[250]" || line["size"] != float64(len(letter1)) || line["sender"] != "<>" || line["address"] != good.address.String()) {
			t.Error(line)
		}
	}
}

// A connection that was kept and is dead is replaced, once.
func TestKeptConnection(t *testing.T) {
	s := newLMTPStore(t, "store1", nil)
	m := newMailer(t, unchanged, s)
	deliver := func() {
		t.Helper()
		m.begins("a@store1.example")
		m.says(letter1)
		m.hears("250 2.0.0 ")
	}
	deliver()
	s.dropAll()
	deliver()
	s.set("MAIL", "421 4.4.2 idle for too long")
	m.sends("MAIL FROM:<>", "250", "RCPT TO:<a@store1.example>", "451 4.3.0", "RSET", "250")
	s.set("MAIL", "250 OK")
	deliver()
	s.down()
	m.sends("MAIL FROM:<>", "250", "RCPT TO:<a@store1.example>", "451 4.4.1", "RSET", "250")
	if got := len(s.got()); got != 3 {
		t.Errorf("the store has %d messages", got)
	}
}

// A store that says more than it was asked is not asked again over that connection: its next answer would be to a question
// that was not put yet.
func TestStoreTalksAhead(t *testing.T) {
	s := newLMTPStore(t, "store1", map[string]string{"end": "250 2.0.0 a|250 2.0.0 b|250 2.0.0 c|250 2.0.0 d"})
	m := newMailer(t, unchanged, s)
	m.begins("a@store1.example")
	m.says(letter1)
	m.hears("250 2.0.0 a")
	s.set("MAIL", "550 5.7.1 no")
	m.sends("MAIL FROM:<>", "250", "RCPT TO:<a@store1.example>", "550 5.7.1 no")
}

// RFC 5321 asks for 100 recipients, and somewhere there is an end.
func TestManyRecipients(t *testing.T) {
	s := newLMTPStore(t, "store1", nil)
	m := newMailer(t, unchanged, s)
	var said strings.Builder
	said.WriteString("MAIL FROM:<>\r\n")
	for i := range maxRecipients + 1 {
		fmt.Fprintf(&said, "RCPT TO:<a%d@store1.example>\r\n", i)
	}
	said.WriteString("DATA\r\n")
	go func() { _, _ = io.WriteString(m.client, said.String()) }()
	m.hears("250")
	m.hears(slices.Repeat([]string{"250"}, maxRecipients)...)
	m.hears("452 4.5.3", "354")
	m.says(letter1)
	for i := range maxRecipients {
		m.hears(fmt.Sprintf("250 2.0.0 TO:<a%d@store1.example>", i))
	}
}

// So it is with stores.
func TestManyStores(t *testing.T) {
	s := newLMTPStore(t, "store", nil)
	m := newMailer(t, func(c *configs.Config) {
		one := c.Backends[0]
		c.Routes = nil
		for i := range maxStores + 1 {
			one.Name = fmt.Sprint("store", i)
			c.Backends = append(c.Backends, one)
			c.Routes = append(c.Routes, configs.Route{User: []string{fmt.Sprint("a", i)}, To: one.Name})
		}
	}, s)
	for range 2 {
		m.sends("MAIL FROM:<>", "250")
		for i := range maxStores {
			m.sends(fmt.Sprintf("RCPT TO:<a%d>", i), "250")
		}
		m.sends(fmt.Sprintf("RCPT TO:<a%d>", maxStores), "452 4.5.3", "DATA", "354")
		m.says(letter1)
		m.hears(slices.Repeat([]string{"250"}, maxStores)...)
	}
	if got := len(s.got()); got != 2*maxStores {
		t.Errorf("%d messages came", got)
	}
	// Of all these connections few are kept.
	for end := time.Now().Add(patience); s.connections() > maxKept; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections are kept", s.connections())
		}
	}
}

// Mistakes are counted from one message to the next: a session may be a long one.
func TestMistakesAreForgotten(t *testing.T) {
	s := newLMTPStore(t, "store1", nil)
	m := newMailer(t, unchanged, s)
	for range 3 {
		for range maxMistakes {
			m.sends("WHAT", "500")
		}
		m.begins("a@store1.example")
		m.says(letter1)
		m.hears("250")
	}
}

// A crash ends the session, and leaves no delivery behind.
func TestMailerCrashes(t *testing.T) {
	s := newLMTPStore(t, "store1", nil)
	m := newMailer(t, unchanged, s)
	m.crash = "recipient refused"
	m.sends("MAIL FROM:<>", "250", "RCPT TO:<a@store1.example>", "250")
	m.says("RCPT TO:<a@nowhere.example>\r\n")
	<-m.done
	if took, _ := s.took(); len(took) > 0 {
		t.Errorf("the store has got %+v", took)
	}
	if lines := m.logged("session crashed"); len(lines) != 1 {
		t.Errorf("the log has %v", lines)
	}
}

// Whom a bare name means is the listener's to say.
func TestRealm(t *testing.T) {
	s := newLMTPStore(t, "store1", nil)
	m := newMailer(t, func(c *configs.Config) { c.Listen.Listeners[0].Realm = "store1.example" }, s)
	m.begins("Alice+Folder")
	m.says(letter1)
	m.hears("250 2.0.0 TO:<alice+Folder@store1.example> by store1")
}

// A backend without LMTP is the operator's mistake, and no reason to lose mail.
func TestNoService(t *testing.T) {
	s := newLMTPStore(t, "store1", nil)
	m := newMailer(t, func(c *configs.Config) {
		c.Backends = append(c.Backends, configs.Backend{Name: "other"})
		c.Routes = append(c.Routes, configs.Route{To: "other"})
	}, s)
	m.sends("MAIL FROM:<>", "250", "RCPT TO:<a@b.example>", "451 4.3.5 ")
	if lines := m.logged("recipient refused"); len(lines) != 1 || lines[0]["level"] != "warn" {
		t.Errorf("the log has %v", lines)
	}
}

// A crash spoils one store's mail, and nobody waits for ever.
func TestDeliveryCrashes(t *testing.T) {
	dialogue := &lmtpDialogue{smtpTalk: smtpTalk{talk{session: &session{settings: &settings{log: zap.NewNop()}}}}, late: context.Background()}
	message := newMessage(dialogue, wire.Path{}, nil)
	d := newDelivery(message, nil) // which no task can do without
	message.deliveries = append(message.deliveries, d)
	r := &recipient{heard: newAnswer(), verdict: newAnswer()}
	d.tasks <- func() { d.rcpt(r) }
	<-r.heard.ready
	if got := r.heard.line(); got != "451 4.3.0 Temporary failure, try again later" {
		t.Error(got)
	}
	d.tasks <- func() {
		d.accepted, d.refusal.Code = append(d.accepted, r), 0
		d.conclude()
	}
	<-r.verdict.ready
	if got := r.verdict.line(); got != "451 4.3.0 Temporary failure, try again later" {
		t.Error(got)
	}
	close(d.tasks)
	<-d.done
	if !strings.Contains(fmt.Sprint(d.err), "crashed: ") {
		t.Error(d.err)
	}
}
