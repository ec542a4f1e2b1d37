package directories

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// mupdateEntry is a connection to a master that has not let us in yet.
type mupdateEntry struct {
	*wire.Conn
	raw        net.Conn
	timeout    time.Duration
	mechanisms []string // what the master offers for AUTHENTICATE
	startTLS   bool     // it offers STARTTLS
	err        error    // of the first step that has failed
}

// enter goes through greeting, TLS and login, each of which has its own time. The end of ctx ends it by closing raw.
func (m *murder) enter(ctx context.Context, raw net.Conn, address configs.Address) (*mupdateSession, error) {
	e := &mupdateEntry{Conn: wire.New(raw), raw: raw, timeout: m.config.Timeout}
	settings := m.tls.Clone()
	settings.ServerName, _, _ = net.SplitHostPort(address.Address)
	begin := func() error { return e.DialTLS(ctx, settings) }
	implicit, start := m.config.TLS == configs.TLSImplicit, m.config.TLS == configs.TLSStartTLS
	e.step("TLS", implicit, begin)
	e.step("greeting", true, e.greet)
	e.step("STARTTLS", start, e.askForTLS)
	e.step("TLS", start, begin)
	// RFC 3656 section 4.10: the master says again what it offers, and what it said before TLS is void.
	e.step("greeting after TLS", start, e.greet)
	e.step("AUTHENTICATE", m.config.User != "", func() error { return e.authenticate(m.config.User, m.config.Password) })
	if e.err != nil {
		return nil, e.err
	}
	conn, rest, err := e.Detach()
	if err != nil {
		return nil, err
	}
	from := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(rest), &patient{conn, m.config.Timeout}), 1<<16)
	return &mupdateSession{conn: conn, timeout: m.config.Timeout, in: mupdateReader{r: from}}, nil
}

// step does what is wanted, unless a step before has failed.
func (e *mupdateEntry) step(what string, wanted bool, do func() error) {
	if e.err != nil || !wanted {
		return
	}
	_ = e.raw.SetDeadline(time.Now().Add(e.timeout)) // a connection that is closed says so when it is used
	if err := do(); err != nil {
		e.err = fmt.Errorf("%s: %w", what, err)
	}
}

// maxGreeting bounds the lines of a greeting.
const maxGreeting = 100

// greet reads what the master offers, up to `* OK MUPDATE ...` (RFC 3656 section 3.8). Lines that we do not know are for others.
func (e *mupdateEntry) greet() error {
	e.mechanisms, e.startTLS = nil, false
	for range maxGreeting {
		args, err := e.ReadCommand(nil)
		if err != nil {
			return err
		}
		if !args.Take("* ") {
			return fmt.Errorf("%w: it greets by %.40q", errMupdate, args.Rest())
		}
		word, _ := args.Word()
		switch word = strings.ToUpper(word); word {
		case "OK":
			return nil
		case "AUTH":
			e.mechanisms = readWords(args)
		case "STARTTLS":
			e.startTLS = true
		case "NO", "BAD", "BYE":
			return refusal(word, args)
		}
	}
	return fmt.Errorf("%w: its greeting does not end", errMupdate)
}

// readWords reads mechanisms, which RFC 3656 writes as atoms and Cyrus as strings.
func readWords(args *wire.Args) (words []string) {
	for args.Space() {
		word, ok := args.AString()
		if !ok {
			break
		}
		words = append(words, strings.ToUpper(word))
	}
	return words
}

func (e *mupdateEntry) askForTLS() error {
	if !e.startTLS {
		return errors.New("the master does not offer it")
	}
	e.Send("S1 STARTTLS\r\n")
	word, args, err := e.answer("S1")
	if err == nil && word != "OK" {
		err = refusal(word, args)
	}
	return err
}

// authenticate logs in. What the master says to that may have the password in it, and is not repeated.
func (e *mupdateEntry) authenticate(user, password string) error {
	if !slices.Contains(e.mechanisms, "PLAIN") {
		return errors.New("the master does not offer PLAIN here")
	}
	e.Send(`A1 AUTHENTICATE "PLAIN" `, wire.ClientString([]byte("\x00"+user+"\x00"+password)), "\r\n")
	word, _, err := e.answer("A1")
	if err == nil && word != "OK" {
		err = fmt.Errorf("the master says %s", word)
	}
	return err
}

// answer reads the answer to a command.
func (e *mupdateEntry) answer(tag string) (word string, args *wire.Args, err error) {
	args, err = e.ReadCommand(nil)
	if err != nil {
		return "", nil, err
	}
	if args.Take(tag + " ") {
		word, _ = args.Word()
		word = strings.ToUpper(word)
	}
	if !slices.Contains([]string{"OK", "NO", "BAD", "BYE"}, word) {
		return "", nil, fmt.Errorf("%w: no answer to %s", errMupdate, tag)
	}
	return word, args, nil
}

func refusal(word string, args *wire.Args) error {
	args.Space()
	text, _ := args.String()
	return fmt.Errorf("the master says %s: %.100q", word, text)
}

// patient has each read take no longer than its time, however long a list is as a whole.
type patient struct {
	net.Conn
	timeout time.Duration
}

func (p *patient) Read(b []byte) (int, error) {
	_ = p.SetReadDeadline(time.Now().Add(p.timeout))
	n, err := p.Conn.Read(b)
	return n, bareError(err)
}

// bareError leaves out the addresses of a connection: the port that the system chose makes one trouble look like many.
func bareError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// mupdateSession is a connection to a master that has let us in.
type mupdateSession struct {
	conn    net.Conn
	timeout time.Duration
	in      mupdateReader
	asks    int // how often it was asked for changes
}

// updateTag is the tag of UPDATE, which everything bears that is said of mailboxes, for ever after (RFC 3656 section 4.11).
const updateTag = "U1"

// list asks for all mailboxes. From then on the session is good for changes alone.
func (s *mupdateSession) list() (*mailboxes, error) {
	m := newMailboxes()
	if err := s.ask(updateTag, "UPDATE", m.apply); err != nil {
		return nil, err
	}
	if len(m.places) == 0 {
		// A master that has lost its list must not make everybody unknown.
		return nil, errors.New("the master lists no mailbox")
	}
	return m, nil
}

// changes has the master say what has changed. Once it has answered NOOP it has said everything (RFC 3656 section 4.8).
func (s *mupdateSession) changes(apply func(mupdateResponse) error) error {
	s.asks++
	return s.ask("N"+strconv.Itoa(s.asks), "NOOP", apply)
}

// ask says a command, and reads up to the answer.
func (s *mupdateSession) ask(tag, command string, apply func(mupdateResponse) error) error {
	_ = s.conn.SetDeadline(time.Now().Add(s.timeout)) // reads have theirs anew each time
	if _, err := io.WriteString(s.conn, tag+" "+command+"\r\n"); err != nil {
		return bareError(err)
	}
	for {
		r, err := s.in.read()
		if err != nil {
			return err
		}
		switch word := string(r.what); {
		case word == "OK" && string(r.tag) == tag:
			return nil
		case slices.Contains([]string{"OK", "NO", "BAD", "BYE"}, word):
			return fmt.Errorf("the master answers %s by %s: %.100q", command, word, r.strings[0])
		case string(r.tag) != updateTag:
			return fmt.Errorf("%w: %s %s", errMupdate, r.tag, word)
		}
		if err := apply(r); err != nil {
			return err
		}
	}
}
