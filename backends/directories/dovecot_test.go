package directories

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/configs"
)

// authServer is one connection to a fake of Dovecot's auth service. Its lines are written with a blank for each tab.
type authServer struct {
	testing.TB
	net.Conn
	r *bufio.Reader
}

// dovecotServer talks by a function that gets each connection behind the handshake, and its number.
func dovecotServer(t testing.TB, talk func(s *authServer, number int)) configs.Auth {
	t.Helper()
	return rawDovecotServer(t, func(s *authServer, number int) {
		s.says("VERSION 1 2", "MECH PLAIN plaintext", "MECH SCRAM-SHA-256 mutual-auth", "SPID 77", "CUID 1", "COOKIE 00", "DONE")
		s.hears("VERSION 1 2")
		s.hears("CPID " + strconv.Itoa(os.Getpid()))
		talk(s, number)
	})
}

func rawDovecotServer(t testing.TB, talk func(s *authServer, number int)) configs.Auth {
	t.Helper()
	socket := socketServer(t, func(c net.Conn, number int) {
		talk(&authServer{t, c, bufio.NewReader(c)}, number)
	})
	return configs.Auth{Verify: configs.VerifyDovecot, Socket: socket}
}

func (s *authServer) says(lines ...string) {
	for _, line := range lines {
		fmt.Fprintf(s, "%s\n", strings.ReplaceAll(line, " ", "\t"))
	}
}

// line is what the client says next, "" if nothing more.
func (s *authServer) line() string {
	line, _ := s.r.ReadString('\n')
	return strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "\t", " ")
}

func (s *authServer) hears(want string) {
	if got := s.line(); got != want {
		s.Errorf("Dovecot hears %q, want %q", got, want)
	}
}

// waits reads until the client leaves, or the test is over.
func (s *authServer) waits() {
	for s.line() != "" {
	}
}

// asked reads a question, and returns its id and the password in it.
func (s *authServer) asked() (id, password string) {
	words := strings.Fields(s.line())
	if len(words) < 3 {
		return "", ""
	}
	encoded, _ := strings.CutPrefix(words[len(words)-1], "resp=")
	message, _ := base64.StdEncoding.DecodeString(encoded)
	parts := strings.Split(string(message), "\x00")
	return words[1], parts[len(parts)-1]
}

// answers says OK to "right" and FAIL to anything else, until the client leaves.
func (s *authServer) answers() {
	for {
		switch id, password := s.asked(); {
		case id == "":
			return
		case password == "right":
			s.says("OK " + id + " user=anna@a.example")
		default:
			s.says("FAIL " + id + " user=anna@a.example")
		}
	}
}

func resp(message string) string { return base64.StdEncoding.EncodeToString([]byte(message)) }

func TestDovecotHears(t *testing.T) {
	plain := login("right")
	full := plain
	full.Service, full.TLS, full.Session, full.SNI = configs.Submissions, 0x304, "s 1\t2", "mail.a.example"
	full.Client, full.Port, full.Address = netip.MustParseAddr("::ffff:203.0.113.5"), 4321, netip.MustParseAddrPort("[2001:db8::1]:465")
	pop := plain
	pop.Service, pop.Mechanism = configs.POP3, "LOGIN"
	for _, tt := range []struct {
		q    Query
		want string
	}{
		{plain, "AUTH 1 PLAIN service=imap resp=" + resp("\x00anna@a.example\x00right")},
		{pop, "AUTH 1 PLAIN service=pop3 resp=" + resp("\x00anna@a.example\x00right")},
		{full, "AUTH 1 PLAIN service=smtp secured=tls session=s 1\x01t2 rip=203.0.113.5 rport=4321 lip=2001:db8::1 lport=465 " +
			"local_name=mail.a.example resp=" + resp("\x00anna@a.example\x00right")},
	} {
		v := openVerifier(t, dovecotServer(t, func(s *authServer, _ int) {
			s.hears(tt.want)
			s.says("OK 1 user=anna@a.example")
			s.waits()
		}))
		if answer, err := v.Lookup(t.Context(), tt.q); err != nil || answer != (Answer{Verified: true}) {
			t.Errorf("%+v, %v", answer, err)
		}
	}
}

func TestDovecotSays(t *testing.T) {
	for _, tt := range []struct {
		says   string // with the id 1
		want   Answer
		denied string // ErrDenied, and what the log reads
		fails  string // a failure of the world
	}{
		{says: "OK 1", want: Answer{Verified: true}},
		{says: "OK 1 user=anna@a.example original_user=Anna", want: Answer{Verified: true}},
		{says: "OK 1 user=robert", want: Answer{Verified: true, User: "robert"}},
		{says: "OK 1  user=x\x011y", fails: "a user's name that is none"},
		{says: "OK 1 user=x\x01ty", fails: "a user's name that is none"},
		{says: "OK 1 user=" + strings.Repeat("x", 513), fails: "a user's name that is none"},
		{says: "OK 1 user=a\x01", fails: "a user's name that is none"},
		{says: "OK 1 host=10.0.0.1", want: Answer{Verified: true}},

		{says: "OK 1 user=anna@a.example proxy host=store1", want: Answer{Verified: true, Backend: "store1"}},
		{
			says: "OK 1 user=anna@a.example  proxy=y host=10.0.0.1 port=1143 destuser=anna pass=other",
			want: Answer{Verified: true, Backend: "10.0.0.1:1143", User: "anna", Password: "other"},
		},
		{says: "OK 1 user=u proxy host=::1 port=143 pass=right", want: Answer{Verified: true, Backend: "[::1]:143", User: "u"}},
		{says: "OK 1 user=anna@a.example nologin host=store2", want: Answer{Verified: true, Backend: "store2"}},
		{says: "OK 1 proxy", fails: "a proxy without a host"},
		{says: "OK 1 proxy host=", fails: "a proxy without a host"},
		{says: "OK 1 proxy host=a\x01tb", fails: "a proxy to what is no host"},
		{says: "OK 1 proxy host=../a", fails: "a proxy to what is no host"},
		{says: "OK 1 proxy host=a port=0", fails: "a proxy to what is no port"},
		{says: "OK 1 proxy host=a port=65536", fails: "a proxy to what is no port"},
		{says: "OK 1 proxy host=a destuser=x\x01n", fails: "a user's name that is none"},
		{says: "OK 1 proxy host=a pass=secret\x01nLOGOUT", fails: "a proxy with a password that cannot be said"},
		{says: "OK 1 proxy host=a master=admin pass=x", fails: "a master user"},

		{says: "OK 1 user=anna@a.example nologin", denied: "nologin"},
		{says: "OK 1 nologin= proxy reason=Moved\x01tout", denied: `nologin ("Moved\tout")`},
		{says: "FAIL 1", denied: "the password is wrong"},
		{says: "FAIL 1 user=anna@a.example", denied: "the password is wrong"},
		{says: "FAIL 1 code=user_disabled", denied: `"user_disabled"`},
		{says: "FAIL 1 code=pass_expired reason=Expired", denied: `"pass_expired" ("Expired")`},
		{says: "FAIL 1 code=authz_fail", denied: `"authz_fail"`},
		{says: "FAIL 1 reason=" + strings.Repeat("x", 1000), denied: "the password is wrong"},
		{says: "FAIL 1 user=anna@a.example code=temp_fail", fails: "a temporary failure"},
		{says: "FAIL 1 temp reason=Down", fails: `a temporary failure ("Down")`},

		{says: "CONT 1 ", fails: "a challenge to PLAIN"},
		{says: "CONT 1 #", fails: "a challenge that is no base64"},
		{says: "OK 2 user=anna@a.example", fails: "a reply to what nobody has asked"},
		{says: "OK 4294967297", fails: "without the number"},
		{says: "OK 0", fails: "without the number"},
		{says: "OK -1", fails: "without the number"},
		{says: "OK", fails: "without the number"},
		{says: "ok 1 user=anna@a.example", fails: "no reply"},
		{says: "OKAY 1 user=anna@a.example", fails: "no reply"},
		{says: "* OK", fails: "without the number"},
		{says: "OK 1 x=" + strings.Repeat("x", maxAuthLine), fails: "a line that is too long"},
	} {
		v := openVerifier(t, dovecotServer(t, func(s *authServer, _ int) {
			s.asked()
			s.says(tt.says)
			s.waits()
		}))
		if tt.fails != "" {
			failsWith(t, v, login("right"), tt.fails)
			continue
		}
		answer, err := v.Lookup(t.Context(), login("right"))
		if answer != tt.want || errors.Is(err, ErrDenied) != (tt.denied != "") || err != nil && !strings.HasSuffix(err.Error(), tt.denied) {
			t.Errorf("%.100q: %+v, %v", tt.says, answer, err)
		}
	}
}

func TestDovecotHandshake(t *testing.T) {
	for _, tt := range []struct{ says, fails string }{
		{"VERSION 2 0\nMECH PLAIN\nDONE\n", `version "2" of the auth protocol`},
		{"MECH PLAIN\nDONE\n", `version "" of the auth protocol`},
		{"VERSION 1 3\nMECH LOGIN\nDONE\n", "no mechanism PLAIN is offered"},
		{"VERSION 1 3\nMECH PLAIN\n", "the connection has ended"},
		{"", "the connection has ended"},
		{"* OK IMAP4rev1 ready\n" + strings.Repeat("x\n", 200), "a handshake without an end"},
		{strings.Repeat("x", maxAuthLine+1), "a line that is too long"},
	} {
		v := openVerifier(t, rawDovecotServer(t, func(s *authServer, _ int) {
			s.line()
			s.line()
			if s.says(strings.TrimSuffix(tt.says, "\n")); strings.HasSuffix(tt.says, "DONE\n") {
				s.waits()
			}
		}))
		failsWith(t, v, login("right"), tt.fails)
	}
	// Unknown words do not matter, and neither does the order.
	v := openVerifier(t, rawDovecotServer(t, func(s *authServer, _ int) {
		s.hears("VERSION 1 2") // version 2.4 waits for it
		s.says("MECH X", "NEWS x y", "MECH PLAIN plaintext", "VERSION 1 9", "DONE")
		s.line()
		s.answers()
	}))
	if answer, err := v.Lookup(t.Context(), login("right")); err != nil || !answer.Verified {
		t.Errorf("%+v, %v", answer, err)
	}
}

// Many ask at once over one connection, and each gets its own answer, in whatever order they come.
func TestDovecotAnswersOutOfOrder(t *testing.T) {
	const many = 50
	v := openVerifier(t, dovecotServer(t, func(s *authServer, number int) {
		if number != 1 {
			t.Error("more than one connection")
		}
		var verdicts []string
		for range many {
			id, password := s.asked()
			verdict := "FAIL " + id
			if strings.HasSuffix(password, "0") {
				verdict = "OK " + id
			}
			verdicts = append([]string{verdict}, verdicts...)
		}
		s.says(verdicts...)
		s.waits()
	}))
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			answer, err := v.Lookup(t.Context(), login(fmt.Sprintf("x%d", i)))
			if right := i%10 == 0; answer.Verified != right || errors.Is(err, ErrDenied) == right {
				t.Errorf("%d: %+v, %v", i, answer, err)
			}
		})
	}
	all.Wait()
}

// A reply that comes too late is nobody's, and the connection goes on.
func TestDovecotIsLate(t *testing.T) {
	given := make(chan struct{})
	v := openVerifier(t, dovecotServer(t, func(s *authServer, number int) {
		late, _ := s.asked()
		<-given
		s.hears("CANCEL " + late)
		s.says("OK " + late)
		s.answers()
	}))
	ctx, leave := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer leave()
	if _, err := v.Lookup(ctx, login("right")); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(given)
	if answer, err := v.Lookup(t.Context(), login("wrong")); !errors.Is(err, ErrDenied) {
		t.Errorf("%+v, %v", answer, err)
	}
}

// Replies that run ahead have no place.
func TestDovecotTalksTooMuch(t *testing.T) {
	c := &dovecotConn{last: 1, waiting: map[uint32]chan reply{1: make(chan reply, 1)}}
	if err := c.take("CONT\t1\t"); err != nil {
		t.Error(err)
	}
	if err := c.take("OK\t1"); err == nil {
		t.Error("nobody minds two replies to one question")
	}
}

// A Dovecot that hangs says nothing of the password: before the handshake, in it, behind it, or when it does not even read.
func TestDovecotHangs(t *testing.T) {
	for _, talk := range []func(s *authServer, _ int){
		func(s *authServer, _ int) { s.waits() },
		func(s *authServer, _ int) { s.says("VERSION 1 2", "MECH PLAIN"); s.waits() },
		func(s *authServer, _ int) { s.says("VERSION 1 2", "MECH PLAIN", "DONE"); s.waits() },
	} {
		c := rawDovecotServer(t, talk)
		c.Timeout = 50 * time.Millisecond
		failsWith(t, openVerifier(t, c), login("right"), "no answer within 50ms")
	}
	over := make(chan struct{})
	c := rawDovecotServer(t, func(s *authServer, _ int) {
		s.says("VERSION 1 2", "MECH PLAIN", "DONE")
		<-over
	})
	c.Timeout = 200 * time.Millisecond
	v := openVerifier(t, c)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if answer, err := v.Lookup(t.Context(), login(strings.Repeat("x", 8000))); err == nil || errors.Is(err, ErrDenied) {
				t.Errorf("%+v, %v", answer, err)
			}
		})
	}
	all.Wait()
	close(over)
}

// A connection that was idle when Dovecot was restarted costs no login; one that ends again and again is a failure.
func TestDovecotRestarts(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	c := dovecotServer(t, func(s *authServer, number int) {
		switch number {
		case 1, 2, 3: // an answer, and an end with the next question
			id, _ := s.asked()
			s.says("OK " + id)
			s.asked()
		default: // ends with the first question
			s.asked()
		}
	})
	c.Timeout = patience
	v := NewDovecot(c, zap.New(core))
	defer v.Close()
	for range 3 {
		if answer, err := v.Lookup(t.Context(), login("right")); err != nil || !answer.Verified {
			t.Errorf("%+v, %v", answer, err)
		}
	}
	failsWith(t, v, login("right"), "the connection has ended")
	failsWith(t, v, login("right"), "the connection has ended")
	v.Close()
	if n := logs.FilterMessage("Dovecot's auth service is not connected any more").Len(); n != 5 {
		t.Errorf("the log has %d ends", n)
	}
}

// A connection that is old answers what it was asked, and takes no more; that costs no login, and the log does not mind.
func TestDovecotConnectionsAge(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	asked, answer := make(chan struct{}), make(chan struct{})
	c := dovecotServer(t, func(s *authServer, number int) {
		id, _ := s.asked()
		if number == 1 {
			asked <- struct{}{}
			<-answer
		}
		s.says("OK " + id + " user=" + strconv.Itoa(number))
		s.waits()
	})
	c.Timeout = patience
	v := NewDovecot(c, zap.New(core))
	defer v.Close()
	lookup := func(number int) {
		if answer, err := v.Lookup(t.Context(), login("right")); err != nil || answer.User != strconv.Itoa(number) {
			t.Errorf("connection %d: %+v, %v", number, answer, err)
		}
	}
	var first sync.WaitGroup
	first.Go(func() { lookup(1) })
	<-asked
	old, _ := v.current()
	old.retire()
	lookup(2)
	close(answer)
	first.Wait()
	<-old.done // with its last question
	idle, _ := v.current()
	idle.retire()
	<-idle.done // at once
	lookup(3)
	v.Close()
	if n := logs.Len(); n != 1 {
		t.Errorf("the log has %v", logs.All())
	}

	defer func(was time.Duration) { dovecotAge = was }(dovecotAge)
	dovecotAge = time.Millisecond
	conn, err := dialDovecot(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	<-conn.done
}

// A Dovecot that dies takes the questions with it, and none of them is an answer.
func TestDovecotDies(t *testing.T) {
	const many = 20
	v := openVerifier(t, dovecotServer(t, func(s *authServer, number int) {
		for range many {
			s.asked()
		}
		fmt.Fprint(s, "OK\t1") // half an answer
	}))
	var all sync.WaitGroup
	for range many {
		all.Go(func() { failsWith(t, v, login("right"), "") })
	}
	time.AfterFunc(time.Second, v.Close) // some ask a second time, where nobody answers
	all.Wait()
}

// What is longer than Dovecot reads would end the connection for all.
func TestDovecotReadsNoMore(t *testing.T) {
	v := openVerifier(t, dovecotServer(t, func(s *authServer, number int) { s.answers() }))
	for _, tt := range []struct {
		password string
		right    bool
	}{{"right", true}, {strings.Repeat("x", maxAuthLine), false}, {strings.Repeat("x", maxAuthLine*3/4-100), false}, {"right", true}} {
		answer, err := v.Lookup(t.Context(), login(tt.password))
		if answer.Verified != tt.right || errors.Is(err, ErrDenied) == tt.right {
			t.Errorf("%d octets: %+v, %v", len(tt.password), answer, err)
		}
	}
}

func TestDovecotClosed(t *testing.T) {
	asked := make(chan struct{})
	v := openVerifier(t, dovecotServer(t, func(s *authServer, number int) {
		s.asked()
		close(asked)
		s.waits()
	}))
	go func() {
		<-asked
		v.Close()
	}()
	failsWith(t, v, login("right"), "closed")
	failsWith(t, v, login("right"), "closed")
}

// An exchange goes back and forth between client and Dovecot, beside other questions.
func TestDovecotExchange(t *testing.T) {
	v := openVerifier(t, withCache(dovecotServer(t, func(s *authServer, number int) {
		s.hears("AUTH 1 SCRAM-SHA-256 service=imap resp=" + resp("n,,n=anna,r=x"))
		s.says("CONT 1 " + resp("r=xy,s=,i=1"))
		s.hears("CONT 1 " + resp("c=biws,r=xy,p=z"))
		s.says("CONT 1 " + resp("v=w"))
		s.hears("CONT 1 ")
		s.says("OK 1 user=anna@a.example")
		s.hears("AUTH 2 SCRAM-SHA-256 service=imap resp=") // a first message may be empty, and is one
		s.says("FAIL 2")
		s.hears("AUTH 3 SCRAM-SHA-256 service=imap resp=")
		s.says("CONT 3 " + resp("r"))
		s.hears("CANCEL 3")
		s.waits()
	})))
	d, ok := AsDovecot(v)
	if !ok {
		t.Fatal("no Dovecot is behind the verifier")
	}
	if err := d.Learn(t.Context()); err != nil || fmt.Sprint(d.Offers()) != "[PLAIN SCRAM-SHA-256]" {
		t.Errorf("%v, %v", d.Offers(), err)
	}
	ask := func(name, first string, ask func([]byte) ([]byte, error)) (Answer, error) {
		q := login("")
		q.Mechanism, q.Exchange = "SCRAM-SHA-256", &Exchange{Name: name, First: []byte(first), Ask: ask}
		return v.Lookup(t.Context(), q)
	}
	answer, err := ask(anna.User, "n,,n=anna,r=x", converses(t, "r=xy,s=,i=1", "c=biws,r=xy,p=z", "v=w", ""))
	if err != nil || answer != (Answer{Verified: true}) {
		t.Errorf("%+v, %v", answer, err)
	}
	if answer, err = ask(anna.User, "", nil); !errors.Is(err, ErrDenied) {
		t.Errorf("%+v, %v", answer, err)
	}
	gone := errors.New("the client has left")
	answer, err = ask(anna.User, "", func([]byte) ([]byte, error) { return nil, gone })
	if !errors.Is(err, gone) || answer != (Answer{}) {
		t.Errorf("%+v, %v", answer, err)
	}
	for _, other := range []string{"anna", "Anna@a.example", "bob@a.example", ""} { // Dovecot is asked about nobody else
		if answer, err = ask(other, "n,,n=x,r=x", nil); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %+v, %v", other, answer, err)
		}
	}
	q := login("token")
	q.Mechanism = "OAUTHBEARER"
	failsWith(t, v, q, "no password")
	q.Exchange = &Exchange{Name: q.User}
	failsWith(t, v, q, "no mechanism OAUTHBEARER is offered")
	q.Mechanism = "X\tsecured"
	failsWith(t, v, q, "is offered")
}

// What Dovecot offers is learned without a question, and forgotten when nobody answers any more.
func TestDovecotOffers(t *testing.T) {
	waits := func(d *Dovecot, want string) {
		t.Helper()
		for end := time.Now().Add(patience); fmt.Sprint(d.Offers()) != want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%v are offered, want %s", d.Offers(), want)
			}
		}
	}
	defer func(look, age time.Duration) { dovecotLook, dovecotAge = look, age }(dovecotLook, dovecotAge)
	dovecotLook, dovecotAge = 10*time.Millisecond, 10*time.Millisecond
	c := dovecotServer(t, func(s *authServer, _ int) { s.waits() })
	c.Timeout = patience
	d := NewDovecot(c, zap.NewNop())
	defer d.Close()
	waits(d, "[PLAIN SCRAM-SHA-256]")
	if err := os.Rename(c.Socket, c.Socket+"-away"); err != nil {
		t.Fatal(err)
	}
	waits(d, "[]")
	if err := os.Rename(c.Socket+"-away", c.Socket); err != nil {
		t.Fatal(err)
	}
	waits(d, "[PLAIN SCRAM-SHA-256]")
}

// converses is a client that hears challenges and responds to them, in turn.
func converses(t testing.TB, lines ...string) func([]byte) ([]byte, error) {
	return func(challenge []byte) ([]byte, error) {
		if len(lines) < 2 || string(challenge) != lines[0] {
			t.Errorf("challenge %q, want %q", challenge, lines)
			return nil, errors.New("no response")
		}
		response := lines[1]
		lines = lines[2:]
		return []byte(response), nil
	}
}

func withCache(c configs.Auth) configs.Auth {
	c.Cache = time.Minute
	return c
}

func FuzzDovecot(f *testing.F) {
	for _, seed := range []string{"OK\t1\tuser=anna", "OK\t1\tproxy\thost=::1\tport=143\tpass=x", "FAIL\t1\tcode=temp_fail\ttemp", "CONT\t1\tcj0=",
		"OK\t1\tnologin\treason=\x01t\x011", "VERSION\t1\t1\nMECH\tPLAIN\nDONE\nOK\t1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := bufio.NewReaderSize(strings.NewReader(text), maxAuthLine)
		_, _ = readHandshake(r)
		id, reply, err := parseReply(text)
		if err != nil {
			return
		}
		answer, err := reply.answer(login("secret")) // CONT is no answer
		if answer.Verified && (err != nil || id == 0 || !strings.HasPrefix(text, "OK\t") || len(answer.User) > maxName) {
			t.Errorf("%q: %+v, %v", text, answer, err)
		}
		if _, nologin := reply.fields["nologin"]; answer.Verified && nologin && answer.Backend == "" {
			t.Errorf("%q lets in who may not log in", text)
		}
	})
}

func FuzzFields(f *testing.F) {
	f.Add("a\x00b\x01c\td\re\nf")
	f.Fuzz(func(t *testing.T, text string) {
		field := toField.Replace(text)
		if back := fromField.Replace(field); strings.ContainsAny(field, "\x00\t\r\n") || back != text {
			t.Errorf("%q: %q, %q", text, field, back)
		}
	})
}
