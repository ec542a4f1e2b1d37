package directories

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

func init() {
	murderAsk, murderFirst, murderMost, murderSettle = time.Millisecond, time.Millisecond, 10*time.Millisecond, 0
}

// whereIs asks a directory for a user, or for a recipient with a detail.
func whereIs(t testing.TB, d Directory, address string) string {
	t.Helper()
	local, domain, _ := strings.Cut(address, "@")
	q := Query{Local: local, Domain: domain, Service: configs.IMAPS}
	if i := strings.IndexByte(local, '+'); i >= 0 {
		q.Local, q.Detail, q.Service = local[:i], local[i:], configs.LMTP
	}
	answer, err := d.Lookup(t.Context(), q)
	if err != nil {
		return err.Error()
	}
	return answer.Backend
}

// eventually waits for a place.
func eventually(t testing.TB, d Directory, address, want string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(whereIs(t, d, address), want); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: %s, want %s", address, whereIs(t, d, address), want)
		}
	}
}

const unknown = "the directory does not know the user"

func servers(masters ...*fakeMaster) (c configs.Directory) {
	for _, m := range masters {
		c.Servers = append(c.Servers, m.address())
	}
	return c
}

// The list is followed: what is said of a mailbox last is what holds.
func TestMurder(t *testing.T) {
	m := startMaster(t, greeting+`
S: U1 MAILBOX {9+}
S: user.anna {15+}
S: store1!default1 {9+}
S: anna lrsp
S: U1 RESERVE "user.bob" "store1!default"
S: U1 MAILBOX "user.carol" "store1.example.net:143" ""
S: U1 OK "streaming starts"
`)
	d := openMurder(t, servers(m), zap.NewNop())
	eventually(t, d, "anna", "store1")
	for user, want := range map[string]string{
		"bob": errUnplaced.Error(), "carol": "store1.example.net:143", "dave": unknown, "anna@a.example": "store1",
	} {
		if got := whereIs(t, d, user); got != want {
			t.Errorf("%s: %s, want %s", user, got, want)
		}
	}
	m.say(`U1 MAILBOX "user.bob" "store2!default" "bob lrs"`, `U1 DELETE "user.nobody"`)
	eventually(t, d, "bob", "store2")
	m.say(`U1 RESERVE "user.bob" "store2!x"`, `U1 RESERVE "user.bob" "store2!x"`)
	eventually(t, d, "bob", errUnplaced.Error())
	m.say(`U1 MAILBOX "user.bob" "store1!default" "bob lrs"`)
	eventually(t, d, "bob", "store1")
	m.say(`U1 DELETE "user.bob"`, `U1 MAILBOX "user.bob.Sent" "store1" ""`)
	eventually(t, d, "bob", unknown)
	if _, err := d.Lookup(t.Context(), Query{Local: "anna", Verify: true, Secret: "x"}); err == nil || errors.Is(err, ErrDenied) {
		t.Errorf("verified: %v", err)
	}
	d.Close()
	if got := whereIs(t, d, "anna"); got != "no complete list of mailboxes: closed" {
		t.Error(got)
	}
}

// Names that a client chooses find nothing but inboxes.
func TestMurderNames(t *testing.T) {
	m := startMaster(t, greeting+`
S: U1 MAILBOX "user.anna" "store1!default" ""
S: U1 MAILBOX "user.anna.Sent" "store9!default" ""
S: U1 MAILBOX "user.john^doe" "store2!default" ""
S: U1 MAILBOX "user/slash.dot" "store3!default" ""
S: U1 MAILBOX "user/slash.dot/Sent" "store9!default" ""
S: U1 MAILBOX "b.example!user.anna" "store4!default" ""
S: U1 MAILBOX "b.example!user.anna.Sent" "store9!default" ""
S: U1 MAILBOX "b.example!DELETED.user.eve.66F0A1B2" "store9!default" ""
S: U1 MAILBOX "c.example!user.carol" "store5!default" ""
S: U1 MAILBOX "info" "store6!default" ""
S: U1 MAILBOX "info.sales.v1^0" "store7!default" ""
S: U1 MAILBOX "b.example!info" "store8!default" ""
S: U1 MAILBOX "user." "store9!default" ""
S: U1 MAILBOX "user" "store9!default" ""
S: U1 MAILBOX "" "store9!default" ""
S: U1 MAILBOX "user.noplace" "!default" ""
S: U1 MAILBOX "user.badplace" "sto re!default" ""
S: U1 OK "streaming starts"
`)
	d := openMurder(t, servers(m), zap.NewNop())
	eventually(t, d, "anna", "store1")
	for address, want := range map[string]string{
		"anna@a.example": "store1", // a.example may be Cyrus's defaultdomain
		"anna@b.example": "store4", "carol@b.example": unknown, "carol@c.example": "store5", "carol": unknown,
		"john.doe": "store2", "john": unknown, "anna.Sent": unknown, "slash.dot": "store3", "eve@b.example": unknown,
		"noplace": errUnplaced.Error(), "badplace": errUnplaced.Error(),
		// Mail with a detail is for the user, if there is one, and else for a shared mailbox.
		"anna+info@a.example": "store1", "post+info@a.example": "store6", "post+info@b.example": "store8",
		"post+info/sales/v1.0": "store7", "post+info.sales.v1^0": "store7", "post+info.sales": unknown, "post+": unknown,
		"post+user.anna": "store1", "post+nothing@b.example": unknown,
		"@b.example": "", "@c.example": "", "@a.example": unknown, "@": unknown,
		"info": unknown, "b.example!user.anna": unknown, "user.anna": unknown, "../anna": unknown,
		`an"na`: unknown, `an\na`: unknown, "anna\r\nU1 DELETE": unknown, "anna\x00": unknown, "%s": unknown, "*": unknown,
	} {
		if got := whereIs(t, d, address); got != want {
			t.Errorf("%q: %s, want %s", address, got, want)
		}
	}
	m.say(`U1 DELETE "c.example!user.carol"`, `U1 MAILBOX "user.carol" "store1" ""`)
	eventually(t, d, "carol@c.example", "store1") // of which nothing is listed any more
}

// Whoever comes before the list waits for it, but not for long, and not when it is known that none comes.
func TestMurderAwaited(t *testing.T) {
	const list = "S: U1 MAILBOX \"user.anna\" \"store1\" \"\"\nS: U1 OK \"\"\n"
	d := openMurder(t, servers(startMaster(t, greeting+list)), zap.NewNop())
	if got := whereIs(t, d, "anna"); got != "store1" {
		t.Error(got)
	}
	m := startMaster(t, "S* hang")
	c := servers(m)
	c.Timeout = 20 * time.Second
	d = openMurder(t, c, zap.NewNop())
	m.awaitPlay(0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Lookup(ctx, Query{Local: "anna"}); err == nil || !strings.HasSuffix(err.Error(), errNotAsked.Error()) {
		t.Error(err)
	}
	down := startMaster(t, "S* close")
	down.stop()
	d = openMurder(t, servers(down), zap.NewNop())
	if got := whereIs(t, d, "anna"); !strings.Contains(got, "connection refused") {
		t.Error(got)
	}
}

// A master is asked again after it has failed, and until its list is complete the one before holds.
func TestMurderBreaks(t *testing.T) {
	const before = greeting + `
S: U1 MAILBOX "user.anna" "store1!default" ""
S: U1 MAILBOX "user.bob" "store1!default" ""
S: U1 OK ""
`
	const after = greeting + `
S: U1 MAILBOX "user.anna" "store2!default" ""
S: U1 OK ""
`
	for what, broken := range map[string]string{
		"closes at once":          "S* close",
		"closes in the greeting":  "S: * AUTH \"PLAIN\"\nS* close",
		"closes in the list":      greeting + "S: U1 MAILBOX \"user.anna\" \"store3!x\" \"\"\nS* close",
		"closes in a record":      greeting + "S: U1 MAILBOX \"user.anna\" {9+}\nS: store\nS* close",
		"greets by nonsense":      "S: HTTP/1.1 400 Bad Request\nS* hang",
		"greets for ever":         strings.Repeat("S: * X-NOISE\n", 200) + "S* hang",
		"says good bye":           "S: * BYE \"no more connections\"\nS* hang",
		"wants a login":           "S: * OK MUPDATE\nC: U1 UPDATE\nS: U1 BAD \"Please login first\"\nS* hang",
		"goes while it lists":     greeting + "S: * BYE \"shutting down\"\nS* hang",
		"lists nothing":           greeting + "S: U1 OK \"streaming starts\"\nS* hang",
		"lists what is no record": greeting + "S: U1 LOCATION \"user.anna\"\nS* hang",
		"lists half a record":     greeting + "S: U1 MAILBOX \"user.anna\"\nS* hang",
		"lists under another tag": greeting + "S: U2 MAILBOX \"user.anna\" \"store3\" \"\"\nS* hang",
		"answers what nobody asked": greeting +
			"S: N1 OK \"\"\nS* hang",
		"has a literal bomb":         greeting + "S: U1 MAILBOX {2000000000+}\nS* hang",
		"has a number bomb":          greeting + "S: U1 MAILBOX {" + strings.Repeat("9", 5000) + "}\nS* hang",
		"has a word bomb":            greeting + "S: U1 " + strings.Repeat("M", 5000) + "\nS* hang",
		"has a bomb of strings":      greeting + "S: U1 MAILBOX" + strings.Repeat(` ""`, 5000) + "\nS* hang",
		"has a bomb of a string":     greeting + "S: U1 MAILBOX \"" + strings.Repeat("x", 2<<20) + "\nS* hang",
		"has NUL in the greeting":    "S: * OK \x00\nS* hang",
		"sends TLS where none is":    "S: \x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\nS* hang",
		"hangs before its greeting":  "S* hang",
		"hangs in the list":          greeting + "S: U1 MAILBOX \"user.anna\" \"store3!x\" \"\"\nS* hang",
		"hangs when it has listed":   before + "S* hang",
		"denies to tell of changes":  before + "C: N1 NOOP\nS: N1 BAD \"no\"\nS* hang",
		"answers another NOOP":       before + "C: N1 NOOP\nS: N2 OK \"\"\nS* hang",
		"talks nonsense when listed": before + "C: N1 NOOP\nS: U1 MAILBOX user.anna store3 x\nS* hang",
	} {
		t.Run(what, func(t *testing.T) {
			m := startMaster(t, before, broken, after)
			c := servers(m)
			c.Timeout = 10 * time.Second
			if strings.HasPrefix(what, "hangs") {
				c.Timeout = 50 * time.Millisecond
			}
			d := openMurder(t, c, zap.NewNop())
			eventually(t, d, "bob", "store1")
			m.say("close")
			m.awaitPlay(1)
			for _, user := range []string{"anna", "bob"} {
				if got := whereIs(t, d, user); got != "store1" && !(user == "anna" && got == "store2") {
					t.Errorf("%s: %s", user, got)
				}
			}
			eventually(t, d, "anna", "store2")
			if got := whereIs(t, d, "bob"); got != unknown {
				t.Errorf("bob, who is listed no longer: %s", got)
			}
		})
	}
}

// Before there was a list nobody is unknown, and the answer says why there is none.
func TestMurderNoList(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	m := startMaster(t, "S: * BYE \"too many\"\nS* hang")
	down := startMaster(t, "S* close")
	down.stop()
	d := openMurder(t, servers(down, m), zap.New(core))
	eventually(t, d, "anna", `greeting: the master says BYE: "too many"`)
	for i := range 5 {
		m.awaitPlay(i)
	}
	if _, err := d.Lookup(t.Context(), Query{Local: "anna"}); errors.Is(err, ErrNotFound) {
		t.Error("unknown")
	}
	if logs.Len() != 2 { // for each master
		t.Errorf("logged: %v", logs.All())
	}
}

// Servers are tried in order, and a longer list than there can be is none.
func TestMurderServers(t *testing.T) {
	defer func(n int) { maxMailboxes = n }(maxMailboxes)
	maxMailboxes = 2
	few := greeting + "S: U1 MAILBOX \"user.anna\" \"store1\" \"\"\nS: U1 OK \"\"\n"
	many := greeting + strings.Join([]string{`S: U1 MAILBOX "user.a" "s" ""`, `S: U1 MAILBOX "user.b" "s" ""`, `S: U1 MAILBOX "user.c" "s" ""`, `S* hang`}, "\n")
	down := startMaster(t, "S* close")
	down.stop()
	d := openMurder(t, servers(down, startMaster(t, many), startMaster(t, few)), zap.NewNop())
	eventually(t, d, "anna", "store1")
	d.Close()
}

// A restart begins with the copy, and so does one after which no master can be reached.
func TestMurderCopy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "murder")
	m := startMaster(t, greeting+`
S: U1 MAILBOX "user.anna" "store1!default" ""
S: U1 RESERVE "user.bob" "store1!default"
S: U1 MAILBOX "c.example!user.carol" "store1!default" ""
S: U1 OK ""
`)
	c := servers(m)
	c.Copy = file
	d := openMurder(t, c, zap.NewNop())
	eventually(t, d, "anna", "store1")
	m.say(`U1 MAILBOX "user.dave" "store2!default" ""`)
	eventually(t, d, "dave", "store2")
	if answer, err := d.Lookup(t.Context(), anna); err != nil || !answer.Kept.IsZero() || !answer.Down.IsZero() {
		t.Errorf("while it is followed: %+v, %v", answer, err)
	}
	d.Close()
	m.stop()

	began := time.Now()
	d = openMurder(t, c, zap.NewNop())
	for end := began.Add(patience); ; time.Sleep(time.Millisecond) {
		answer, err := d.Lookup(t.Context(), anna)
		if err != nil || answer.Kept.IsZero() || answer.Kept.After(began) || time.Now().After(end) {
			t.Fatalf("from the copy: %+v, %v", answer, err)
		}
		if answer.Down.After(began) {
			break
		}
	}
	for user, want := range map[string]string{
		"anna": "store1", "bob": errUnplaced.Error(), "carol@c.example": "store1", "carol": unknown, "dave": "store2",
	} {
		if got := whereIs(t, d, user); got != want {
			t.Errorf("%s: %s, want %s", user, got, want)
		}
	}
	d.Close()
	files, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(files) != 1 {
		t.Errorf("left behind: %v %v", files, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

// The copy is written when the master goes, which may be long before we do.
func TestMurderCopyInTime(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	dir := filepath.Join(t.TempDir(), "missing")
	m := startMaster(t, greeting+"S: U1 MAILBOX \"user.anna\" \"store1\" \"\"\nS: U1 OK \"\"\n")
	c := servers(m)
	c.Copy = filepath.Join(dir, "murder")
	d := openMurder(t, c, zap.New(core))
	eventually(t, d, "anna", "store1")
	m.say("close")
	m.awaitPlay(1)
	m.say("close")
	m.awaitPlay(2)
	if logs.Len() != 1 || logs.All()[0].Message != "copy of the mailboxes cannot be written" {
		t.Errorf("logged: %v", logs.All())
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m.say("close")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if list, err := loadMailboxes(c.Copy); err == nil && len(list.places) == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no copy")
		}
	}
}

// TLS and a login, and what keeps from them. The password is in no error.
func TestMurderEnters(t *testing.T) {
	ca, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	write(t, file, string(ca.PEM))
	const hello = "S: * AUTH \"PLAIN\"\nS: * STARTTLS\nS: * OK MUPDATE\n"
	const plain = "S: * AUTH PLAIN \"LOGIN\"\nS: * OK MUPDATE\n"
	const login = "C: A1 AUTHENTICATE \"PLAIN\" \"AGZyb250ZW5kAHNlY3JldA==\"\n"
	const list = "C: U1 UPDATE\nS: U1 MAILBOX \"user.anna\" \"store1\" \"\"\nS: U1 OK \"\"\n"
	const begin = "C: S1 STARTTLS\nS: S1 OK \"go\"\nS* starttls\n"
	for _, test := range []struct {
		what, conversation, user string
		mode                     configs.TLSMode
		name, want               string
	}{
		{"login", plain + login + "S: A1 OK \"welcome\"\n" + list, "frontend", configs.TLSNone, "127.0.0.1", "store1"},
		{"login under STARTTLS", "S: * STARTTLS\nS: * OK MUPDATE\n" + begin + plain + login + "S: A1 OK \"welcome\"\n" + list, "frontend", configs.TLSStartTLS, "127.0.0.1", "store1"},
		{"TLS", "S* starttls\n" + plain + list, "", configs.TLSImplicit, "127.0.0.1", "store1"},
		{"no STARTTLS", plain + "S* hang", "frontend", configs.TLSStartTLS, "127.0.0.1", "STARTTLS: the master does not offer it"},
		{"STARTTLS refused", hello + "C: S1 STARTTLS\nS: S1 NO \"not now\"\nS* hang", "", configs.TLSStartTLS, "127.0.0.1", `STARTTLS: the master says NO: "not now"`},
		{"plaintext behind STARTTLS", hello + "C: S1 STARTTLS\nS: S1 OK\\r\\n* OK MUPDATE\nS* hang", "", configs.TLSStartTLS, "127.0.0.1", "TLS: plaintext bytes behind STARTTLS"},
		{"another name", "S* starttls\nS* hang", "", configs.TLSImplicit, "other.example", "TLS: tls: failed to verify certificate: x509: "},
		{"PLAIN before TLS alone", hello + begin + "S: * OK MUPDATE\nS* hang", "frontend", configs.TLSStartTLS, "127.0.0.1", "AUTHENTICATE: the master does not offer PLAIN here"},
		{"wrong password", plain + login + "S: A1 NO \"secret AGZyb250ZW5kAHNlY3JldA== is wrong\"\nS* hang", "frontend", configs.TLSNone, "127.0.0.1", "AUTHENTICATE: the master says NO"},
		{"challenge", plain + login + "S: c2VjcmV0\nS* hang", "frontend", configs.TLSNone, "127.0.0.1", "AUTHENTICATE: the master does not talk MUPDATE: no answer to A1"},
	} {
		t.Run(test.what, func(t *testing.T) {
			core, logs := observer.New(zap.DebugLevel)
			leaf, err := ca.Issue(devca.Options{Names: []string{test.name}})
			if err != nil {
				t.Fatal(err)
			}
			m := startTLSMaster(t, leaf, test.conversation)
			c := servers(m)
			c.User, c.Password, c.TLS, c.TLSCA = test.user, "secret", test.mode, file
			d := openMurder(t, c, zap.New(core))
			eventually(t, d, "anna", test.want)
			d.Close()
			for _, entry := range logs.All() {
				for _, field := range entry.Context {
					if err, ok := field.Interface.(error); ok && strings.Contains(err.Error(), "ecret") || strings.Contains(field.String, "AGZy") {
						t.Errorf("logged: %v", err)
					}
				}
			}
		})
	}
}
