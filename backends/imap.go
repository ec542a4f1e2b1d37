package backends

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// imapStore talks IMAP (RFC 9051, RFC 3501) to a store.
type imapStore struct{}

func (imapStore) Open(c *wire.Conn, o Opening) (Capabilities, error) {
	line, err := c.ReadLine()
	if err != nil {
		return Capabilities{}, fmt.Errorf("reading the greeting: %w", err)
	}
	status, code, text := splitStatus(strings.TrimPrefix(string(line), "* "))
	// A PREAUTH greeting would make STARTTLS impossible and log everybody in as nobody knows whom.
	if status != "OK" || !strings.HasPrefix(string(line), "* ") {
		return Capabilities{}, fmt.Errorf("greeting is %q %q", status, text)
	}
	caps, known := imapCapabilities(code)
	if o.StartTLS != nil {
		if _, err := imapCommand(c, "J1", "STARTTLS"); err != nil {
			return Capabilities{}, fmt.Errorf("STARTTLS: %w", err)
		}
		if err := o.StartTLS(); err != nil {
			return Capabilities{}, err
		}
		known = false
	}
	if !known {
		answer, err := imapCommand(c, "J2", "CAPABILITY")
		if err != nil {
			return Capabilities{}, fmt.Errorf("CAPABILITY: %w", err)
		}
		if caps, known = imapCapabilities(answer.capability); !known {
			return Capabilities{}, errors.New("no answer to CAPABILITY")
		}
	}
	return caps, imapIntroduce(c, caps, o)
}

// imapIntroduce tells the store of the client by ID (RFC 2971), which Dovecot takes from a peer that it trusts. The answer
// comes with that to the login, whose command travels in the same packet.
func imapIntroduce(c *wire.Conn, caps Capabilities, o Opening) error {
	wanted := o.Info == configs.ClientInfoID || o.Info == configs.ClientInfoAuto && caps.Has("ID")
	if o.Client == nil || !wanted {
		return nil
	}
	var list []string
	for _, p := range idParameters(*o.Client) {
		name, errName := wire.Quote(p.name)
		value, errValue := wire.Quote(p.value)
		if err := cmp.Or(errName, errValue); err != nil {
			return err
		}
		list = append(list, name+" "+value)
	}
	c.Send(imapIntroduction, " ID (", strings.Join(list, " "), ")\r\n")
	return nil
}

// imapIntroduction is the tag of ID.
const imapIntroduction = "J5"

func (imapStore) Login(c *wire.Conn, caps Capabilities, m sasl.Client) (Welcome, error) {
	answer, err := imapLogin(c, caps, m)
	if err != nil {
		return Welcome{}, err
	}
	if answer.capability == "" {
		// RFC 9051 section 6.2.3: capabilities may change with login, and the store need not say so by itself.
		if answer, err = imapCommand(c, "J4", "CAPABILITY"); err != nil {
			return Welcome{}, fmt.Errorf("CAPABILITY after login: %w", err)
		}
	}
	_, names, _ := strings.Cut(answer.capability, " ")
	if names == "" {
		return Welcome{}, errors.New("no answer to CAPABILITY after login")
	}
	return Welcome{Capabilities: names}, nil
}

func (imapStore) Leave(c *wire.Conn) { leave(c, "J9 LOGOUT\r\n") }

func imapLogin(c *wire.Conn, caps Capabilities, m sasl.Client) (imapAnswer, error) {
	mechanism, initial, err := m.Start()
	if err != nil {
		return imapAnswer{}, err
	}
	if !slices.Contains(caps.Mechanisms, mechanism) {
		if plain, ok := m.(*Plain); ok && plain.Authzid == "" {
			return imapLoginCommand(c, caps, plain)
		}
		return imapAnswer{}, fmt.Errorf("store does not offer %s", mechanism)
	}
	c.Send("J3 AUTHENTICATE ", mechanism)
	if caps.Has("SASL-IR") && initial != nil {
		c.Send(" ", saslInitial(initial)) // RFC 4959
		initial = nil
	}
	c.Send("\r\n")
	return imapRead(c, "J3", func(challenge string) error {
		response := initial
		if response != nil {
			initial = nil
		} else if response, err = nextResponse(m, challenge); err != nil {
			return err
		}
		c.Send(wire.EncodeBase64(response), "\r\n")
		return nil
	})
}

// imapLoginCommand logs in at a store without SASL PLAIN. Literals are synchronising: such a store may know no others.
func imapLoginCommand(c *wire.Conn, caps Capabilities, p *Plain) (imapAnswer, error) {
	if caps.Has("LOGINDISABLED") {
		return imapAnswer{}, errors.New("store takes neither AUTHENTICATE PLAIN nor LOGIN")
	}
	literals := []string{p.User, p.Password}
	c.Send(fmt.Sprintf("J3 LOGIN {%d}\r\n", len(p.User)))
	return imapRead(c, "J3", func(string) error {
		switch len(literals) {
		case 2:
			c.Send(literals[0], fmt.Sprintf(" {%d}\r\n", len(literals[1])))
		case 1:
			c.Send(literals[0], "\r\n")
		default:
			return errors.New("store asks for a third argument of LOGIN")
		}
		literals = literals[1:]
		return nil
	})
}

// imapAnswer is what a store said to a command that it granted.
type imapAnswer struct {
	capability string // "CAPABILITY ...", from the tagged OK or an untagged line; "" if there was none
}

func imapCommand(c *wire.Conn, tag, command string) (imapAnswer, error) {
	c.Send(tag, " ", command, "\r\n")
	answer, err := imapRead(c, tag, func(string) error { return errors.New("continuation unasked for") })
	return answer, undenied(err)
}

// imapRead reads until the tagged answer. Untagged data before login is for nobody: all but capabilities is dropped
// (RFC 9051 section 11.3), and its amount is bounded.
func imapRead(c *wire.Conn, tag string, answer func(challenge string) error) (imapAnswer, error) {
	var got imapAnswer
	for range maxNoise {
		args, err := c.ReadCommand(nil)
		if err != nil {
			return got, err
		}
		who, _ := args.Word()
		args.Take(" ")
		rest := args.Rest()
		switch who {
		case "+":
			if err := answer(rest); err != nil {
				return got, err
			}
		case "*":
			if kind, _, _ := strings.Cut(rest, " "); strings.EqualFold(kind, "CAPABILITY") {
				got.capability = rest
			} else if strings.EqualFold(kind, "BYE") {
				_, code, text := splitStatus(rest)
				return got, &Refusal{Code: imapCode(code), Text: text}
			}
		case tag:
			status, code, text := splitStatus(rest)
			if status != "OK" {
				return got, imapRefusal(status, imapCode(code), text)
			}
			if imapCode(code) == "CAPABILITY" {
				got.capability = code
			}
			return got, nil
		case imapIntroduction:
			if status, code, text := splitStatus(rest); status != "OK" {
				return got, fmt.Errorf("ID: %w", &Refusal{Code: imapCode(code), Text: text})
			}
		}
	}
	return got, errNoise
}

func imapCode(code string) string {
	name, _, _ := strings.Cut(code, " ")
	return strings.ToUpper(name)
}

// imapTemporary are the codes of RFC 5530 and RFC 2221 with which a NO says nothing about the password.
var imapTemporary = []string{"UNAVAILABLE", "SERVERBUG", "CLIENTBUG", "CANNOT", "INUSE", "LIMIT", "OVERQUOTA", "CONTACTADMIN",
	"CORRUPTION", "PRIVACYREQUIRED", "REFERRAL"}

// imapRefusal judges a tagged answer other than OK: only NO can be about credentials.
func imapRefusal(status, code, text string) error {
	return &Refusal{Code: code, Text: text, Denied: status == "NO" && !slices.Contains(imapTemporary, code)}
}

// imapCapabilities reads "CAPABILITY name name ..." (RFC 9051 section 7.2.2).
func imapCapabilities(s string) (Capabilities, bool) {
	words := strings.Fields(strings.ToUpper(s))
	if len(words) == 0 || words[0] != "CAPABILITY" {
		return Capabilities{}, false
	}
	var caps Capabilities
	for _, w := range words[1:] {
		if mechanism, ok := strings.CutPrefix(w, "AUTH="); ok {
			caps.Mechanisms = append(caps.Mechanisms, mechanism)
		} else {
			caps.List = append(caps.List, Capability{Name: w})
		}
	}
	return caps, true
}
