package backends

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"jackdaw/configs"
	"jackdaw/internal/devca"
	"jackdaw/internal/wire"
)

// A dialogue is a conversation between us and a store, and what we make of it:
//
//	B:   what the store says             B>  octets with Go's escapes, and no line end added
//	P:   what we say                     B*  starttls, close, hang: for a while, or flood LINE: for ever, or until we go
//
// At its end both sides are quiet: anything else that we say is an error, and so is a line that was not reached.
type dialogue struct {
	what  string
	tls   bool // STARTTLS is wanted
	open  bool // there is no login
	peer  *Peer
	info  configs.ClientInfo
	user  string // by XCLIENT LOGIN
	with  mechanism
	talk  string
	caps  string // from Open; "" means that it is of no interest
	got   string // the Welcome, as "capabilities" or "capabilities = final"
	err   string // a part of the error; "" if there must be none
	deny  bool   // it is the client's own fault
	after string // what is left to read behind the login
}

// mechanism is a SASL client that says its first message and then one after the other. Its zero value stands for Plain.
type mechanism struct {
	name  string
	first []byte
	next  []string
	heard *[]string // the challenges, where somebody asks for them
}

func (m *mechanism) Start() (string, []byte, error) { return m.name, m.first, nil }

func (m *mechanism) Next(challenge []byte) ([]byte, error) {
	if m.heard != nil {
		*m.heard = append(*m.heard, string(challenge))
	}
	if len(m.next) == 0 {
		return nil, errors.New("nothing to say")
	}
	response := m.next[0]
	m.next = m.next[1:]
	return []byte(response), nil
}

// authority issues for all tests.
var authority = sync.OnceValue(func() *devca.CA {
	ca, err := devca.New()
	if err != nil {
		panic(err)
	}
	return ca
})

// certificate makes a store's TLS settings.
func certificate(t testing.TB, names ...string) *tls.Config {
	leaf, err := authority().Issue(devca.Options{Names: names})
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{leaf.TLS}}
}

func playDialogues(t *testing.T, store Store, tests []dialogue) {
	server := certificate(t, "store.example")
	for _, test := range tests {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			ours, theirs := net.Pipe()
			_ = theirs.SetDeadline(time.Now().Add(patience))
			_ = ours.SetDeadline(time.Now().Add(patience))
			done := make(chan error, 1)
			go func() {
				done <- playStore(theirs, test.talk, server)
				_ = theirs.Close()
			}()
			test.check(t, store, ours)
			_ = ours.Close()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// check is our side of the conversation.
func (test dialogue) check(t *testing.T, store Store, raw net.Conn) {
	c := wire.New(raw)
	var begin func() error
	if test.tls {
		begin = func() error {
			return c.DialTLS(context.Background(), &tls.Config{RootCAs: authority().Pool(), ServerName: "store.example"})
		}
	}
	caps, err := store.Open(c, Opening{StartTLS: begin, Hello: "proxy.example.net", Client: test.peer, Info: test.info, User: test.user})
	if got := writeCaps(caps); test.caps != "" && got != test.caps {
		t.Errorf("capabilities are %q, want %q", got, test.caps)
	}
	var welcome Welcome
	if err == nil && !test.open {
		switch {
		case test.user != "":
			welcome, err = store.Login(c, caps, &XCLIENT{})
		case test.with.name != "":
			welcome, err = store.Login(c, caps, &test.with)
		default:
			welcome, err = store.Login(c, caps, &Plain{User: "alice", Password: "secret"})
		}
	}
	if err == nil && test.err != "" || err != nil && (test.err == "" || !strings.Contains(err.Error(), test.err)) {
		t.Errorf("error is %v, want %q", err, test.err)
	}
	if Denied(err) != test.deny {
		t.Errorf("denied is %v for %v", Denied(err), err)
	}
	got := welcome.Capabilities
	if welcome.Final != nil {
		got += " = " + string(welcome.Final)
	}
	if got != test.got {
		t.Errorf("the welcome is %q, want %q", got, test.got)
	}
	if _, rest, _ := c.Detach(); string(rest) != test.after {
		t.Errorf("%q is left, want %q", rest, test.after)
	}
}

// playStore is the store's side.
func playStore(conn net.Conn, talk string, server *tls.Config) error {
	read := bufio.NewReader(conn)
	for line := range strings.Lines(talk) {
		line = strings.TrimSpace(line)
		kind, text, _ := strings.Cut(line, " ")
		var err error
		switch kind {
		case "":
		case "B:":
			_, err = io.WriteString(conn, text+"\r\n")
		case "B>":
			if text, err = strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`); err == nil {
				_, err = io.WriteString(conn, text)
			}
		case "P:", "P~": // what we say, or how it begins
			var got string
			if got, err = read.ReadString('\n'); err == nil && got != text+"\r\n" && (kind == "P:" || !strings.HasPrefix(got, text)) {
				err = fmt.Errorf("store got %q", got)
			}
		case "B*":
			what, again, _ := strings.Cut(text, " ")
			switch what {
			case "close":
				return nil
			case "hang":
				time.Sleep(400 * time.Millisecond)
				return nil
			}
			for what == "flood" {
				if _, err = io.WriteString(conn, again+"\r\n"); err != nil {
					return nil
				}
			}
			secure := tls.Server(conn, server)
			err = secure.Handshake()
			conn, read = secure, bufio.NewReader(secure)
		default:
			err = errors.New("no such step")
		}
		if err != nil {
			return fmt.Errorf("at %q: %w", line, err)
		}
	}
	if rest, _ := io.ReadAll(read); len(rest) > 0 {
		return fmt.Errorf("store got %q in the end", rest)
	}
	return nil
}

// noise is a number of lines of a store's.
func noise(n int, line string) string { return strings.Repeat("B: "+line+"\n", n) }

// deaf is a store for fuzz tests: it says what it says, and closes.
type deaf struct {
	net.Conn
	says string
	got  strings.Builder
}

// Read returns one line, so that we say what we have to say before the next.
func (d *deaf) Read(p []byte) (int, error) {
	if d.says == "" {
		return 0, io.EOF
	}
	line, _, _ := strings.Cut(d.says, "\n")
	n := copy(p, d.says[:min(len(line)+1, len(d.says))])
	d.says = d.says[n:]
	return n, nil
}

func (d *deaf) Write(p []byte) (int, error) { return d.got.Write(p) }
func (d *deaf) SetDeadline(time.Time) error { return nil }
func (d *deaf) Close() error                { return nil }

// fuzzStore lets a store say anything. It must neither crash us nor keep us, nor make us say more than there is to say; and
// what is handed on to the client as it is must be a part of one line.
func fuzzStore(t *testing.T, store Store, says []byte, way byte) {
	raw := &deaf{says: string(says)}
	c := wire.New(raw)
	var begin func() error
	if way&1 != 0 {
		begin = func() error { return nil }
	}
	caps, err := store.Open(c, Opening{StartTLS: begin, Hello: "proxy.example.net"})
	if err != nil {
		if checkSaid(t, raw); Denied(err) {
			t.Fatalf("denied before a login: %v", err)
		}
		return
	}
	scram := &mechanism{name: "SCRAM-SHA-256", first: []byte("n,,n=alice,r=x"), next: []string{"c=biws", ""}}
	var welcome Welcome
	if way&2 != 0 {
		welcome, err = store.Login(c, caps, scram)
	} else {
		welcome, err = store.Login(c, caps, &Plain{User: "alice", Password: "secret"})
	}
	if checkSaid(t, raw); err == nil && strings.ContainsAny(welcome.Capabilities, "\r\n\x00") {
		t.Fatalf("the welcome is %q", welcome)
	}
	store.Leave(c)
}

func checkSaid(t *testing.T, raw *deaf) {
	if n := raw.got.Len(); n > 1<<10 {
		t.Fatalf("said %d octets", n)
	}
}
