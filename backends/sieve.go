package backends

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"

	"jackdaw/internal/wire"
)

// sieveStore talks ManageSieve (RFC 5804) to a store.
type sieveStore struct{}

func (sieveStore) Open(c *wire.Conn, o Opening) (Capabilities, error) {
	caps, err := sieveCapabilities(c)
	if err != nil {
		return Capabilities{}, fmt.Errorf("reading the greeting: %w", undenied(err))
	}
	if o.StartTLS != nil {
		if err := sieveCommand(c, "STARTTLS"); err != nil {
			return Capabilities{}, fmt.Errorf("STARTTLS: %w", err)
		}
		if err := o.StartTLS(); err != nil {
			return Capabilities{}, err
		}
		// RFC 5804 section 2.2: the store sends its capabilities again, unasked.
		if caps, err = sieveCapabilities(c); err != nil {
			return Capabilities{}, fmt.Errorf("reading capabilities after STARTTLS: %w", undenied(err))
		}
	}
	if line := xclientLine(o.Client); line != "" && o.wantsXCLIENT(caps.Has("XCLIENT")) {
		if err := sieveCommand(c, line); err != nil {
			return Capabilities{}, fmt.Errorf("XCLIENT: %w", err)
		}
	}
	return caps, nil
}

// sieveCommand sends a command that must be granted.
func sieveCommand(c *wire.Conn, line string) error {
	c.Send(line, "\r\n")
	_, err := sieveRead(c, nil)
	return undenied(err)
}

func (sieveStore) Login(c *wire.Conn, caps Capabilities, m sasl.Client) (Welcome, error) {
	mechanism, initial, err := m.Start()
	if err != nil {
		return Welcome{}, err
	}
	if !slices.Contains(caps.Mechanisms, mechanism) {
		return Welcome{}, fmt.Errorf("store does not offer %s", mechanism)
	}
	c.Send(`AUTHENTICATE "`, mechanism, `"`)
	if initial != nil {
		c.Send(" ", wire.ClientString(initial))
	}
	c.Send("\r\n")
	final, err := sieveRead(c, func(challenge string) error {
		response, err := nextResponse(m, challenge)
		if err != nil {
			return err
		}
		c.Send(wire.ClientString(response), "\r\n")
		return nil
	})
	return Welcome{Final: final}, err
}

func (sieveStore) Leave(c *wire.Conn) { leave(c, "LOGOUT\r\n") }

// sieveCapabilities reads capability lines up to their OK (RFC 5804 section 1.7).
func sieveCapabilities(c *wire.Conn) (Capabilities, error) {
	var caps Capabilities
	for range maxNoise {
		args, err := c.ReadCommand(nil)
		if err != nil {
			return Capabilities{}, err
		}
		name, ok := args.String()
		if !ok {
			_, err := sieveStatus(args)
			return caps, err
		}
		args.Space()
		value, _ := args.String()
		if name = strings.ToUpper(name); name == "SASL" {
			caps.Mechanisms = strings.Fields(strings.ToUpper(value))
		} else {
			caps.List = append(caps.List, Capability{name, value})
		}
	}
	return Capabilities{}, errNoise
}

// sieveRead reads until the answer to a command. Strings are challenges; answer is nil where none can come. With the OK
// may come the last message of an exchange (RFC 5804 section 2.1).
func sieveRead(c *wire.Conn, answer func(challenge string) error) (final []byte, err error) {
	for range maxNoise {
		args, err := c.ReadCommand(nil)
		if err != nil {
			return nil, err
		}
		challenge, ok := args.String()
		if !ok {
			return sieveStatus(args)
		}
		if answer == nil {
			return nil, errors.New("challenge unasked for")
		}
		if err := answer(challenge); err != nil {
			return nil, err
		}
	}
	return nil, errNoise
}

// sieveTemporary are the codes of RFC 5804 section 1.3 with which a NO says nothing about the password.
var sieveTemporary = []string{"TRYLATER", "ENCRYPT-NEEDED", "AUTH-TOO-WEAK", "TRANSITION-NEEDED", "REFERRAL", "QUOTA"}

// skipCode passes over the rest of a response code and the blank behind it: only its name and first argument are of use.
func skipCode(args *wire.Args) {
	for depth := 1; depth > 0; {
		_, isString := args.String()
		switch {
		case isString || args.Space():
		case args.Take("("):
			depth++
		case args.Take(")"):
			depth--
		default:
			if _, ok := args.Word(); !ok {
				return
			}
		}
	}
	args.Space()
}

// sieveStatus judges `OK|NO|BYE [(CODE args)] [string]` (RFC 5804 section 1.2).
func sieveStatus(args *wire.Args) (final []byte, err error) {
	status, _ := args.Word()
	args.Space()
	var code, value string
	if args.Take("(") {
		code, _ = args.Word()
		args.Space()
		value, _ = args.String()
		skipCode(args)
	}
	text, _ := args.String()
	code = strings.ToUpper(code)
	switch strings.ToUpper(status) {
	case "OK":
		if code == "SASL" {
			return wire.DecodeBase64(value)
		}
		return nil, nil
	case "NO":
		return nil, &Refusal{Code: code, Text: text, Denied: !slices.Contains(sieveTemporary, code)}
	case "BYE":
		return nil, &Refusal{Code: code, Text: text}
	}
	return nil, fmt.Errorf("store answers %q", status)
}
