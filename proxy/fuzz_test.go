package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// said is all that the client of a transcript says.
func said(transcript string) []byte {
	var all []byte
	for line := range strings.Lines(transcript) {
		kind, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch rest = encode(rest); kind {
		case "C:":
			all = append(all, rest+"\r\n"...)
		case "C>":
			all = append(all, unescape(rest)...)
		}
	}
	return all
}

// seed adds what the clients of a protocol's transcripts say.
func seed(f *testing.F, protocol string, add func(said []byte)) {
	files, err := filepath.Glob("testdata/" + protocol + "/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatal("no transcripts", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		add(said(string(text)))
	}
}

// FuzzIMAP and its like let a client say anything, in the clear where it may log in and where it may not, in reads of
// any length. Its session ends, it is answered in its protocol, and the store hears logins and nothing else before one
// succeeds.
func FuzzIMAP(f *testing.F) {
	fuzzDialogue(f, configs.IMAP, &strictStore{
		greeting: "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER AUTH=SCRAM-SHA-256] store\r\n",
		login:    regexp.MustCompile(`^J3 AUTHENTICATE ([A-Z0-9-]+) ([A-Za-z0-9+/=]+)\r\n$`),
		response: regexp.MustCompile(`^([A-Za-z0-9+/=]*)\r\n$`),
		logout:   "J9 LOGOUT\r\n", challenge: "+ Y2hhbGxlbmdl\r\n", no: "J3 NO no\r\n", ok: "J3 OK [CAPABILITY IMAP4rev1] in\r\n",
	}, checkIMAP)
}

func FuzzSieve(f *testing.F) {
	fuzzDialogue(f, configs.Sieve, &strictStore{
		greeting: "\"SASL\" \"PLAIN XOAUTH2 OAUTHBEARER SCRAM-SHA-256\"\r\nOK\r\n",
		login:    regexp.MustCompile(`^AUTHENTICATE "([A-Z0-9-]+)" (?:"|\{\d+\+\}\r\n)([A-Za-z0-9+/=]+)"?\r\n$`),
		response: regexp.MustCompile(`^(?:"|\{\d+\+\}\r\n)([A-Za-z0-9+/=]*)"?\r\n$`),
		logout:   "LOGOUT\r\n", challenge: "\"Y2hhbGxlbmdl\"\r\n", no: "NO \"no\"\r\n", ok: "OK (SASL \"ZmluYWw=\")\r\n",
	}, checkSieve)
}

func fuzzDialogue(f *testing.F, service configs.Service, store *strictStore, check func(answers []byte) error) {
	socket, err := net.Listen("unix", filepath.Join(f.TempDir(), "store"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { socket.Close() })
	store.idle.L = &store.mu
	go store.serve(socket)
	access := testAccess
	access.Addresses = []configs.Address{{Network: "unix", Address: socket.Addr().String()}}
	config := testConfig()
	config.Listen.Listeners[0].Service = service
	setup := testSetup(f, config, access)
	clear := testSettings(setup, io.Discard)
	plaintext := testSettings(setup, io.Discard)
	plaintext.listener.PlaintextFrom = loopback

	seed(f, string(service), func(said []byte) {
		f.Add(said, true, uint16(4096))
		f.Add(said, false, uint16(4096))
		f.Add(said, true, uint16(1))
	})
	f.Fuzz(func(t *testing.T, said []byte, mayLogin bool, atOnce uint16) {
		client := &scripted{says: bytes.NewReader(said), atOnce: 1 + int(atOnce)}
		settings := clear
		if mayLogin {
			settings = plaintext
		}
		hung := time.AfterFunc(patience, func() { panic("the session does not end") })
		serveSession(context.Background(), settings, client)
		hung.Stop()
		if err := check(client.heard.Bytes()); err != nil {
			t.Errorf("%v in\n%s", err, client.heard.Bytes())
		}
		relayed, used, err := store.verdict()
		if err != nil {
			t.Error("the store was sent", err)
		}
		if !bytes.Contains(said, relayed) {
			t.Errorf("relayed %q, which nobody said", relayed)
		}
		if service == configs.Sieve && cyrusUnauthenticates(relayed) {
			t.Errorf("relayed an UNAUTHENTICATE: %q", relayed)
		}
		if !mayLogin && used {
			t.Error("the store was asked without TLS")
		}
	})
}

// scripted is a client that says all it has to say, listens, and never waits.
type scripted struct {
	says   *bytes.Reader
	atOnce int
	heard  bytes.Buffer
}

func (c *scripted) Read(p []byte) (int, error)  { return c.says.Read(p[:min(len(p), c.atOnce)]) }
func (c *scripted) Write(p []byte) (int, error) { return c.heard.Write(p) }
func (c *scripted) Close() error                { return nil }
func (c *scripted) CloseWrite() error           { return nil }
func (c *scripted) LocalAddr() net.Addr         { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 143} }
func (c *scripted) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40000}
}
func (c *scripted) SetDeadline(time.Time) error      { return nil }
func (c *scripted) SetReadDeadline(time.Time) error  { return nil }
func (c *scripted) SetWriteDeadline(time.Time) error { return nil }

// strictStore takes a login if its user has an "a" in the name, and nothing that is not exactly a login.
type strictStore struct {
	greeting, logout, challenge, no, ok string
	login, response                     *regexp.Regexp
	hello                               *regexp.Regexp // what comes first, where something does
	offer                               string         // and the answer to it
	// commands reads a login that is no SASL exchange, and says what PLAIN would say; "" where it is another command.
	commands func(first string, next func() string) string

	mu      sync.Mutex
	idle    sync.Cond // no session is left
	open    int       // sessions
	used    bool      // a login was tried
	relayed []byte    // what came behind a login
	err     error     // what should not have come
}

func (s *strictStore) serve(socket net.Listener) {
	for {
		conn, err := socket.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.open++ // before the greeting, without which no session of the proxy can end
		s.mu.Unlock()
		go func() {
			defer conn.Close()
			relayed, used, err := s.session(conn)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.relayed = append(s.relayed, relayed...)
			s.used = s.used || used
			s.err = errors.Join(s.err, err)
			s.open--
			s.idle.Broadcast()
		}()
	}
}

// verdict tells of all sessions since the last verdict.
func (s *strictStore) verdict() (relayed []byte, used bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.open > 0 {
		s.idle.Wait()
	}
	relayed, used, err = s.relayed, s.used, s.err
	s.relayed, s.used, s.err = nil, false, nil
	return relayed, used, err
}

func (s *strictStore) session(conn net.Conn) (relayed []byte, used bool, err error) {
	r := bufio.NewReader(conn)
	_, _ = io.WriteString(conn, s.greeting)
	command := logicalLine(r)
	if s.hello != nil && command != "" {
		if !s.hello.MatchString(command) {
			return nil, true, fmt.Errorf("no hello: %q", command)
		}
		_, _ = io.WriteString(conn, s.offer)
		command = logicalLine(r)
	}
	if command == "" || command == s.logout {
		return nil, false, nil
	}
	mechanism, message, err := s.begin(command, func(answer string) string {
		_, _ = io.WriteString(conn, answer)
		return logicalLine(r)
	})
	if err != nil {
		return nil, true, err
	}
	user, err := userOf(mechanism, message)
	if err != nil {
		return nil, true, err
	}
	if mechanism != "PLAIN" {
		_, _ = io.WriteString(conn, s.challenge)
		if response := logicalLine(r); response == "" {
			return nil, true, nil // the client broke off
		} else if !s.response.MatchString(response) {
			return nil, true, fmt.Errorf("no response: %q", response)
		}
	}
	if !strings.Contains(user, "a") {
		_, _ = io.WriteString(conn, s.no)
		return nil, true, nil
	}
	_, _ = io.WriteString(conn, s.ok)
	relayed, _ = io.ReadAll(r)
	return relayed, true, nil
}

// begin reads the first message of a login. ask sends an answer and reads what comes to it.
func (s *strictStore) begin(command string, ask func(answer string) string) (mechanism, message string, err error) {
	if s.commands != nil {
		if plain := s.commands(command, func() string { return ask(s.ok) }); plain != "" {
			return "PLAIN", plain, nil
		}
	}
	login := s.login.FindStringSubmatch(command)
	if login == nil {
		return "", "", fmt.Errorf("no login: %q", command)
	}
	encoded := login[2]
	if encoded == "" { // it is too long to stand in the command
		encoded = strings.TrimSuffix(ask(s.challenge), "\r\n")
	}
	decoded, err := wire.DecodeBase64(encoded)
	if err != nil {
		return "", "", fmt.Errorf("%w: %q", err, command)
	}
	return login[1], string(decoded), nil
}

// logicalLine reads a line, and the literal that it may announce; "" is the end.
func logicalLine(r *bufio.Reader) string {
	line, err := r.ReadString('\n')
	if err != nil {
		return ""
	}
	if regexp.MustCompile(`^(AUTHENTICATE ".*" )?\{\d+\+\}\r\n$`).MatchString(line) {
		rest, _ := r.ReadString('\n')
		line += rest
	}
	return line
}

// userOf finds the user in a first SASL message, which must be the one form that the proxy writes.
func userOf(mechanism, message string) (user string, err error) {
	form := map[string]string{
		"PLAIN":         `(?s)^\x00([^\x00]+)\x00[^\x00\r\n]+$`,
		"XOAUTH2":       `^user=([^\x01]+)\x01auth=Bearer [!-~]+\x01\x01$`,
		"OAUTHBEARER":   `^n,a=((?:[^\x01,=]|=2C|=3D)+),\x01auth=Bearer [!-~]+\x01\x01$`,
		"SCRAM-SHA-256": `(?s)^[ny],(?:a=[^,]+)?,n=([^,]+),r=.+$`,
	}[mechanism]
	parts := regexp.MustCompile(form).FindStringSubmatch(message)
	if form == "" || parts == nil || !utf8.ValidString(parts[1]) || strings.ContainsFunc(parts[1], func(r rune) bool { return r < ' ' || r == 0x7f || r == '*' }) {
		return "", fmt.Errorf("%s with %q", mechanism, message)
	}
	return parts[1], nil
}

// nextLine cuts off a line, which has no line ends inside and no NUL.
func nextLine(p []byte) (line string, rest []byte, err error) {
	before, rest, found := bytes.Cut(p, []byte("\r\n"))
	if !found || bytes.ContainsAny(before, "\x00\r\n") {
		return "", nil, fmt.Errorf("malformed line %q", before)
	}
	return string(before), rest, nil
}

var imapAnswer = regexp.MustCompile("^(\\* (OK|BYE|BAD|CAPABILITY|ID) [ -~]+|\\+ [A-Za-z0-9+/=]*|([!#$&',-\\[\\]^_`a-z|}~]{1,128}) (OK|NO|BAD) [ -~]+)$")

// checkIMAP reads what an IMAP client reads before login.
func checkIMAP(answers []byte) error {
	for len(answers) > 0 {
		line, rest, err := nextLine(answers)
		switch {
		case err != nil:
			return err
		case !imapAnswer.MatchString(line):
			return fmt.Errorf("malformed answer %q", line)
		case strings.HasSuffix(line, " OK begin TLS"):
			return nil // what follows is TLS
		}
		answers = rest
	}
	return nil
}

var sieveAnswer = regexp.MustCompile(`^("[A-Z]+"( "[ -~]*")?|"[A-Za-z0-9+/=]*"|OK "[^"\\]*"|OK \(SASL "[A-Za-z0-9+/=]*"\)|(NO|BYE)( \([A-Z-]+\))? "[^"\\]+")$`)

// checkSieve reads what a ManageSieve client reads before login.
func checkSieve(answers []byte) error {
	for len(answers) > 0 {
		line, rest, err := nextLine(answers)
		if err != nil {
			return err
		}
		answers = rest
		if tag, ok := strings.CutPrefix(line, "OK (TAG {"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(tag, "}"))
			if err != nil || n > len(rest) || bytes.IndexByte(rest[:n], 0) >= 0 {
				return fmt.Errorf("malformed literal behind %q", line)
			}
			if line, answers, err = nextLine(rest[n:]); line != `) "done"` || err != nil {
				return fmt.Errorf("malformed end of a literal: %q", line)
			}
			continue
		}
		if !sieveAnswer.MatchString(line) {
			return fmt.Errorf("malformed answer %q", line)
		}
		if line == `OK "begin TLS"` {
			return nil // what follows is TLS
		}
	}
	return nil
}

// FuzzSieveGuard compares the guard with what it is to find, however the octets are parted, and with how Cyrus reads.
func FuzzSieveGuard(f *testing.F) {
	found := regexp.MustCompile(`(?i)unauthenticate[ \t]*[\r\n]|\x00`)
	seed(f, "sieve", func(said []byte) { f.Add(said, uint8(1), uint8(7)) })
	f.Fuzz(func(t *testing.T, p []byte, first, second uint8) {
		want := p
		if at := found.FindIndex(p); at != nil {
			want = p[:at[1]-1]
		}
		guard := newSieveGuard(nil)
		var passed []byte
		var err error
		for rest, size := p, int(first); len(rest) > 0 && err == nil; size = int(second) {
			n := min(max(size, 1), len(rest))
			var may int
			may, err = guard.Up(rest[:n])
			passed = append(passed, rest[:may]...)
			rest = rest[n:]
		}
		if !bytes.Equal(passed, want) || (err != nil) != (len(want) < len(p)) {
			t.Errorf("passed %q and %v, want %q", passed, err, want)
		}
		if cyrusUnauthenticates(passed) {
			t.Errorf("Cyrus takes an UNAUTHENTICATE from %q", passed)
		}
	})
}

// cyrusUnauthenticates reads as Cyrus' timsieved does, which goes back to reading words after a mistake of any kind: at the
// next line, or where it stands. So any UNAUTHENTICATE may be a command, if the end of a line is the next thing after it.
func cyrusUnauthenticates(p []byte) bool {
	const maxScript = 32 << 10
	for word := ""; len(p) > 0; {
		c := p[0]
		p = p[1:]
		last := word
		word = ""
		switch {
		case c == '\n' || c == '\r' && bytes.HasPrefix(p, []byte("\n")):
			if last == "unauthenticate" {
				return true
			}
			if c == '\r' {
				p = p[1:]
			}
		case letter(c):
			n := 0
			for n < len(p) && letter(p[n]) {
				n++
			}
			if n == len(p) {
				return false // its end is still to come
			}
			word = strings.ToLower(string(c) + string(p[:n]))
			if p = p[n:]; !cyrusCommands[word] {
				p = cyrusRecovers(p)
			}
		case c == '"':
			p = cyrusQuoted(p, maxScript)
		case c == '{':
			size, rest, ok := cyrusLiteral(p)
			switch {
			case !ok:
				p = cyrusRecovers(rest)
			case size >= len(rest):
				return false
			case size > maxScript:
				p = cyrusRecovers(rest[size:])
			default:
				p = rest[size:]
			}
		case c == '\r':
			p = cyrusRecovers(p)
		}
	}
	return false
}

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

var cyrusCommands = map[string]bool{"authenticate": true, "capability": true, "checkscript": true, "deletescript": true,
	"getscript": true, "havespace": true, "listscripts": true, "logout": true, "noop": true, "putscript": true,
	"renamescript": true, "setactive": true, "starttls": true, "unauthenticate": true}

// cyrusRecovers goes on behind the end of the line, whatever stands in it.
func cyrusRecovers(p []byte) []byte {
	_, rest, _ := bytes.Cut(p, []byte("\n"))
	return rest
}

// cyrusQuoted reads a quoted string up to its end, or to the first octet that it must not have.
func cyrusQuoted(p []byte, limit int) []byte {
	for n := 0; len(p) > 0; n++ {
		c := p[0]
		switch {
		case c == '"':
			return p[1:]
		case c == 0 || c == '\r' || c == '\n' || c > 0x7f || n > limit-10:
			return cyrusRecovers(p)
		case c == '\\':
			if p = p[1:]; len(p) > 0 && p[0] != '"' && p[0] != '\\' {
				return cyrusRecovers(p)
			}
		}
		if len(p) > 0 {
			p = p[1:]
		}
	}
	return nil
}

// cyrusLiteral reads "n+}" and the end of the line.
func cyrusLiteral(p []byte) (size int, rest []byte, ok bool) {
	for len(p) > 0 && '0' <= p[0] && p[0] <= '9' && size < 1<<40 {
		size = 10*size + int(p[0]-'0')
		p = p[1:]
	}
	rest, ok = bytes.CutPrefix(p, []byte("+}\r\n"))
	if !ok {
		return 0, p, false
	}
	return size, rest, true
}

// FuzzSASL begins an exchange of each mechanism with any messages. What is understood would be understood the same if it
// was written for a store and read again.
func FuzzSASL(f *testing.F) {
	for _, m := range mechanisms {
		for _, first := range []string{"\x00alice\x00secret", "alice\x00alice\x00secret", "alice", "n,,n=alice,r=nonce", "y,a=b,n=a=3Db=2Cc,r=nonce,x=y",
			"user=alice\x01auth=Bearer token\x01\x01", "n,a=alice,\x01host=h\x01port=1\x01auth=Bearer token\x01\x01", ""} {
			f.Add(m.name, []byte(first), true, []byte("secret"))
			f.Add(m.name, []byte(first), false, []byte("secret"))
		}
	}
	f.Fuzz(func(t *testing.T, name string, first []byte, initial bool, second []byte) {
		if !strings.Contains(" PLAIN LOGIN OAUTHBEARER XOAUTH2 SCRAM-SHA-256 SCRAM-SHA-1 EXTERNAL ", " "+name+" ") {
			t.Skip("only what is offered is begun")
		}
		responses := [][]byte{first, second}
		if initial {
			responses = responses[1:]
		} else {
			first = nil
		}
		a, err := begin(name, first, func([]byte) ([]byte, error) {
			if len(responses) == 0 {
				return nil, io.EOF
			}
			response := responses[0]
			responses = responses[1:]
			return response, nil
		})
		if err != nil {
			if !isSyntax(err) && err != io.EOF {
				t.Error(err)
			}
			return
		}
		if a.External {
			if name != "EXTERNAL" || a.User != "" || a.Secret != "" || a.First != nil {
				t.Errorf("%s: %+v", name, a)
			}
			return // it is the certificate that says who it is
		}
		if strings.ContainsAny(a.Secret, "\x00\r\n") || a.relayed() != strings.HasPrefix(name, "SCRAM") || a.relayed() && a.Secret != "" {
			t.Errorf("%s: secret %q", name, a.Secret)
		}
		if strings.ContainsAny(a.User, "\x00\x01") || a.User == "" {
			return // no such name is ever written
		}
		if a.relayed() && a.Authzid != "" && a.Authzid != a.User {
			return // who acts for another is not written with one name
		}
		client, err := a.client(a.User, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		mechanism, message, err := client.Start()
		if err != nil {
			t.Fatal(err)
		}
		again, err := begin(mechanism, message, nil)
		if err != nil || again.User != a.User || again.Secret != a.Secret || a.relayed() && again.Authzid != a.Authzid {
			t.Errorf("%s: read %+v, written as %q and read again as %+v, %v", name, a, message, again, err)
		}
	})
}
