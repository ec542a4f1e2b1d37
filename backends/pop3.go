package backends

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"

	"jackdaw/internal/wire"
)

// pop3Store talks POP3 (RFC 1939, RFC 2449) to a store.
type pop3Store struct{}

func (pop3Store) Open(c *wire.Conn, o Opening) (Capabilities, error) {
	greeting, err := pop3Read(c)
	if err != nil {
		return Capabilities{}, fmt.Errorf("reading the greeting: %w", undenied(err))
	}
	if o.StartTLS != nil {
		if err := pop3Command(c, "STLS"); err != nil {
			return Capabilities{}, fmt.Errorf("STLS: %w", err)
		}
		if err := o.StartTLS(); err != nil {
			return Capabilities{}, err
		}
	}
	// Dovecot says in the greeting alone that it takes XCLIENT, so this one word is kept of what was said before TLS. Forged,
	// it can make the login fail, or the store take our address for the client's, as any store does that is not told.
	if line := xclientLine(o.Client); line != "" && o.wantsXCLIENT(greeting == "XCLIENT") {
		if err := pop3Command(c, line); err != nil {
			return Capabilities{}, fmt.Errorf("XCLIENT: %w", err)
		}
	}
	caps, err := pop3Capabilities(c)
	if err == nil && o.Client != nil && o.Client.UTF8 {
		if err = pop3Command(c, "UTF8"); err != nil {
			err = fmt.Errorf("UTF8: %w", err)
		}
	}
	return caps, err
}

func (pop3Store) Login(c *wire.Conn, caps Capabilities, m sasl.Client) (Welcome, error) {
	err := pop3Login(c, caps, m)
	if refusal, ok := errors.AsType[*Refusal](err); ok && refusal.Code == "" && caps.Has("AUTH-RESP-CODE") {
		refusal.Denied = false // RFC 3206 section 6: such a store has [AUTH] for wrong credentials
	}
	return Welcome{}, err
}

func pop3Login(c *wire.Conn, caps Capabilities, m sasl.Client) error {
	mechanism, initial, err := m.Start()
	if err != nil {
		return err
	}
	if !slices.Contains(caps.Mechanisms, mechanism) {
		if plain, ok := m.(*Plain); ok && plain.Authzid == "" {
			return pop3LoginCommands(c, caps, plain)
		}
		return fmt.Errorf("store does not offer %s", mechanism)
	}
	command := "AUTH " + mechanism
	if initial != nil {
		if long := command + " " + saslInitial(initial); len(long) <= maxPOP3Command {
			command, initial = long, nil
		}
	}
	c.Send(command, "\r\n")
	return pop3Exchange(c, m, initial)
}

func (pop3Store) Leave(c *wire.Conn) { leave(c, "QUIT\r\n") }

// maxPOP3Command is the length of a command without its end, within which an initial response must stay (RFC 2449
// section 4, RFC 5034 section 4). Other responses are not bound by it.
const maxPOP3Command = 255 - len("\r\n")

// pop3Exchange answers challenges until the store says yes or no. first is what was too long for the command, or nil.
func pop3Exchange(c *wire.Conn, m sasl.Client, first []byte) error {
	for range maxNoise {
		args, err := c.ReadText()
		if err != nil {
			return err
		}
		line := args.Rest()
		status, challenge, _ := strings.Cut(line, " ")
		if status != "+" {
			_, err := pop3Status(line)
			return err
		}
		response := first
		if first = nil; response == nil {
			if response, err = nextResponse(m, challenge); err != nil {
				return err
			}
		}
		c.Send(wire.EncodeBase64(response), "\r\n")
	}
	return errNoise
}

// pop3LoginCommands logs in at a store without SASL PLAIN. Both arguments are bare (RFC 1939 section 7), so nothing may be
// in them that could be the end of the line, and a command behind it.
func pop3LoginCommands(c *wire.Conn, caps Capabilities, p *Plain) error {
	switch {
	case !caps.Has("USER"):
		return errors.New("store takes neither AUTH PLAIN nor USER")
	case strings.ContainsAny(p.User, " \x00\r\n"):
		return fmt.Errorf("%w: USER cannot carry it", ErrName)
	case strings.ContainsAny(p.Password, "\x00\r\n"):
		return errors.New("PASS cannot carry the password")
	}
	if _, err := pop3Ask(c, "USER "+p.User); err != nil {
		return err
	}
	_, err := pop3Ask(c, "PASS "+p.Password)
	return err
}

// pop3Command sends a command that must be granted.
func pop3Command(c *wire.Conn, command string) error {
	_, err := pop3Ask(c, command)
	return undenied(err)
}

func pop3Ask(c *wire.Conn, command string) (code string, err error) {
	c.Send(command, "\r\n")
	return pop3Read(c)
}

// pop3Read reads an answer, or the first line of one.
func pop3Read(c *wire.Conn) (code string, err error) {
	args, err := c.ReadText()
	if err != nil {
		return "", err
	}
	return pop3Status(args.Rest())
}

// pop3Status judges "+OK [CODE] text" and "-ERR [CODE] text" (RFC 2449 section 8). A code other than [AUTH] means that the
// password is right, or that it was not looked at (RFC 3206).
func pop3Status(line string) (code string, err error) {
	status, code, text := splitStatus(line)
	code = strings.ToUpper(code)
	switch status {
	case "+OK":
		return code, nil
	case "-ERR":
		return code, &Refusal{Code: code, Text: text, Denied: code == "" || code == "AUTH"}
	}
	return "", fmt.Errorf("store answers %q", status)
}

// pop3Capabilities asks what the store can do (RFC 2449 section 5). One that does not know the question has USER and PASS,
// which are older.
func pop3Capabilities(c *wire.Conn) (Capabilities, error) {
	if code, err := pop3Ask(c, "CAPA"); err != nil {
		if _, refused := errors.AsType[*Refusal](err); refused && code == "" {
			return Capabilities{List: []Capability{{Name: "USER"}}}, nil
		}
		return Capabilities{}, fmt.Errorf("CAPA: %w", undenied(err))
	}
	var caps Capabilities
	for range maxNoise {
		args, err := c.ReadText()
		if err != nil {
			return Capabilities{}, fmt.Errorf("CAPA: %w", err)
		}
		line := args.Rest()
		if line == "." {
			return caps, nil
		}
		name, value, _ := strings.Cut(line, " ")
		if name = strings.ToUpper(name); name == "SASL" {
			caps.Mechanisms = strings.Fields(strings.ToUpper(value))
		} else if name != "" {
			caps.List = append(caps.List, Capability{name, value})
		}
	}
	return Capabilities{}, errNoise
}
