package main

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// patience is how long one step of a conversation may take, beside thousands of others.
const patience = 2 * time.Minute

// script is how a client talks to a service. Conversations are turns: a line that is awaited by its beginning, a line that is
// said, and so on.
type script struct {
	name     string
	protocol string   // the store's
	start    []string // up to TLS; nil where it comes first
	greeting string   // what the server says first under TLS; "" if it waits for the client
	login    func(user string) []string
	logout   string
}

var scripts = []script{
	{"imaps", "imap", nil, "* OK", imapLogin, "z LOGOUT"},
	{"imap", "imap", []string{"* OK", "s STARTTLS", "s OK"}, "", imapLogin, "z LOGOUT"},
	{"pop3s", "pop3", nil, "+OK", func(user string) []string {
		return []string{"USER " + user, "+OK", "PASS " + password, "+OK"}
	}, "QUIT"},
	{"submission", "submission", []string{"220 ", "EHLO bench.example", "250 ", "STARTTLS", "220 "}, "", func(user string) []string {
		return []string{"EHLO bench.example", "250 ", "AUTH PLAIN " + plain(user), "235 "}
	}, "QUIT"},
	{"sieve", "sieve", []string{"OK", "STARTTLS", "OK"}, "OK", func(user string) []string {
		return []string{`AUTHENTICATE "PLAIN" "` + plain(user) + `"`, "OK"}
	}, "LOGOUT"},
}

func imapLogin(user string) []string { return []string{"a LOGIN " + user + " " + password, "a OK"} }

func plain(user string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}

func serviceNames() []string {
	var names []string
	for _, s := range scripts {
		names = append(names, s.name)
	}
	return names
}

func scriptFor(service string) *script {
	return &scripts[slices.IndexFunc(scripts, func(s script) bool { return s.name == service })]
}

// client connects to one service of one server. Its methods may be called concurrently.
type client struct {
	*script
	address string
	tls     *tls.Config // nil: none, as at the store
	resumes bool        // and will not have it otherwise
	bulk    bool        // reads and writes in large pieces

	dialled atomic.Uint32
}

// secure makes the client's side of TLS: all servers speak AES-128-GCM, which Go prefers where processors have it.
func secure(version uint16, groups ...tls.CurveID) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, // that would be the client's work alone
		ServerName:         "mail.bench.example",
		MinVersion:         version,
		MaxVersion:         version,
		CurvePreferences:   groups,
		CipherSuites:       []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
	}
}

// session is a connection of a client.
type session struct {
	*script
	net.Conn
	lines *bufio.Reader
}

// open connects, up to the server's greeting under TLS, if it has one. The source addresses change, because each has only so
// many ports.
func (c *client) open() (*session, error) {
	n := c.dialled.Add(1)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+n%200))}, Timeout: patience}
	conn, err := dialer.Dial("tcp", c.address)
	if err != nil {
		return nil, err
	}
	s := &session{script: c.script, Conn: conn, lines: bufio.NewReader(conn)}
	if err = conn.SetDeadline(time.Now().Add(patience)); err == nil {
		err = c.begin(s)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	return s, nil
}

func (c *client) begin(s *session) error {
	if err := s.converse(c.start); err != nil {
		return err
	}
	if c.tls != nil {
		conn := s.Conn
		if c.bulk {
			conn = &gatherer{Conn: conn, in: bufio.NewReaderSize(conn, 1<<18)}
		}
		secure := tls.Client(conn, c.tls)
		if err := secure.Handshake(); err != nil {
			return err
		}
		if err := c.check(secure.ConnectionState()); err != nil {
			return err
		}
		s.Conn, s.lines = secure, bufio.NewReader(secure)
	}
	if c.greeting == "" {
		return nil
	}
	return s.converse([]string{c.greeting})
}

// check sees to it that the same is compared with the same.
func (c *client) check(state tls.ConnectionState) error {
	suites := append(slices.Clone(c.tls.CipherSuites), tls.TLS_AES_128_GCM_SHA256)
	switch {
	case !slices.Contains(suites, state.CipherSuite):
		return fmt.Errorf("the cipher is %s", tls.CipherSuiteName(state.CipherSuite))
	case state.CurveID != tls.X25519 && state.CurveID != tls.X25519MLKEM768:
		return fmt.Errorf("the group is %v", state.CurveID)
	case state.DidResume != c.resumes:
		return fmt.Errorf("resumed: %t, want %t", state.DidResume, c.resumes)
	}
	return nil
}

// login opens a session for a user.
func (c *client) login(user int) (*session, error) {
	s, err := c.open()
	if err != nil {
		return nil, err
	}
	if err = s.converse(append([]string{""}, c.script.login(fmt.Sprintf("user%d@store.example", user))...)); err != nil {
		s.Close()
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	return s, nil
}

// leave logs out and waits for the server's end.
func (s *session) leave() error {
	defer s.Close()
	if _, err := s.Write([]byte(s.logout + "\r\n")); err != nil {
		return err
	}
	for {
		if _, err := s.lines.ReadSlice('\n'); err != nil {
			return nil // whichever way it hangs up
		}
	}
}

// refusals begin the lines that are no good news, whatever is awaited.
var refusals = []string{"a NO", "a BAD", "s NO", "s BAD", "* BYE", "-ERR", "NO", "BYE", "4", "5"}

// converse takes turns, and begins with listening. "" awaits nothing.
func (s *session) converse(turns []string) error {
	for i, turn := range turns {
		if i%2 == 1 {
			if _, err := s.Write([]byte(turn + "\r\n")); err != nil {
				return err
			}
			continue
		}
		for turn != "" {
			line, err := s.lines.ReadString('\n')
			if err != nil {
				return fmt.Errorf("waiting for %q: %w", turn, err)
			}
			if strings.HasPrefix(line, turn) {
				break
			}
			if slices.ContainsFunc(refusals, func(r string) bool { return strings.HasPrefix(line, r) }) {
				return fmt.Errorf("waiting for %q: %q", turn, line)
			}
		}
	}
	return nil
}

// ask says one line and awaits one beginning.
func (s *session) ask(say, await string) error {
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	return s.converse([]string{"", say, await})
}

// gatherer is a connection that moves much with few system calls, so that the load costs less than the proxy.
type gatherer struct {
	net.Conn
	in  *bufio.Reader
	out []byte
}

func (g *gatherer) Read(p []byte) (int, error) {
	if err := g.flush(); err != nil {
		return 0, err
	}
	return g.in.Read(p)
}

func (g *gatherer) Write(p []byte) (int, error) {
	if g.out = append(g.out, p...); len(g.out) < 1<<18 {
		return len(p), nil
	}
	return len(p), g.flush()
}

func (g *gatherer) flush() error {
	if len(g.out) == 0 {
		return nil
	}
	_, err := g.Conn.Write(g.out)
	g.out = g.out[:0]
	return err
}

func (g *gatherer) Close() error {
	_ = g.flush()
	return g.Conn.Close()
}
