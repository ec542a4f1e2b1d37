package backends

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-sasl"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// smtpStore talks SMTP (RFC 5321) to a submission server, or LMTP (RFC 2033) to a store.
type smtpStore struct{ lmtp bool }

func (s smtpStore) Open(c *wire.Conn, o Opening) (Capabilities, error) {
	if _, err := smtpReply(c, 220); err != nil {
		return Capabilities{}, fmt.Errorf("reading the greeting: %w", err)
	}
	caps, err := s.greet(c, o.hello())
	if err != nil {
		return Capabilities{}, err
	}
	if o.StartTLS != nil {
		if _, err := smtpCommand(c, "STARTTLS", 220); err != nil {
			return Capabilities{}, fmt.Errorf("STARTTLS: %w", err)
		}
		if err := o.StartTLS(); err != nil {
			return Capabilities{}, err
		}
		if caps, err = s.greet(c, o.hello()); err != nil { // RFC 3207 section 4.2
			return Capabilities{}, err
		}
	}
	if o.Client != nil {
		if caps, err = s.introduce(c, caps, o); err != nil {
			return Capabilities{}, err
		}
	}
	// It is said to us, as whom the store knows us: it tells nothing of what clients can do, and comes and goes with them.
	caps.List = slices.DeleteFunc(caps.List, func(c Capability) bool { return c.Name == "XCLIENT" })
	return caps, nil
}

// introduce tells the store of the client. It is done wherever the store takes it from us, whatever client_info says of the
// address: a store that trusts our address would take it from whomever we let in.
func (s smtpStore) introduce(c *wire.Conn, caps Capabilities, o Opening) (Capabilities, error) {
	listed, _ := caps.Value("XCLIENT")
	pairs := xclientSMTP(o, s.proto(), listed)
	has := func(name string) bool { return slices.ContainsFunc(pairs, func(p pair) bool { return p.name == name }) }
	switch {
	case o.User != "" && !has("LOGIN"):
		return Capabilities{}, errors.New("store does not take XCLIENT LOGIN from us")
	case o.Info == configs.ClientInfoXCLIENT && !has("ADDR"):
		return Capabilities{}, errors.New("store does not take XCLIENT from us")
	case len(pairs) == 0:
		return caps, nil
	}
	if _, err := smtpCommand(c, xclientCommand(pairs, wire.XText), 220); err != nil {
		// At an error Postfix goes on with the address that it had, which is ours, and trusts it.
		return Capabilities{}, fmt.Errorf("XCLIENT: %w", err)
	}
	caps, err := s.greet(c, o.hello()) // XCLIENT begins the session anew
	if err != nil || !has("NAME") || !caps.Has("XCLIENT") {
		return caps, err
	}
	// Postfix judges by the address that it was told, and Dovecot, which has no NAME, until the login alone. So this client's
	// own XCLIENT would be believed, LOGIN and all: it had better come from nowhere.
	if o.Info == configs.ClientInfoNone {
		return Capabilities{}, errors.New("store takes XCLIENT from everybody")
	}
	o.Info = configs.ClientInfoNone
	return s.introduce(c, caps, o)
}

func (s smtpStore) proto() string {
	if s.lmtp {
		return "LMTP"
	}
	return "ESMTP"
}

// hello is the name that an SMTP or LMTP store hears: the client's, if it is one that every store takes (RFC 5321 section
// 4.1.1.1). Clients call themselves anything, and are to hear that when they say it, or never.
func (o Opening) hello() string {
	if o.Client != nil && isHostName(o.Client.Hello) {
		return o.Client.Hello
	}
	return o.Hello
}

// isHostName recognises a domain and an address literal.
func isHostName(name string) bool {
	if literal, ok := strings.CutPrefix(name, "["); ok {
		literal, ok = strings.CutSuffix(literal, "]")
		address, err := netip.ParseAddr(strings.TrimPrefix(literal, "IPv6:"))
		return ok && err == nil && strings.EqualFold(literal, smtpLiteral(address.WithZone("")))
	}
	domain, err := configs.DNSName(name)
	return err == nil && strings.EqualFold(domain, name)
}

// greet says hello, and reads what the store can do.
func (s smtpStore) greet(c *wire.Conn, name string) (Capabilities, error) {
	verb := "EHLO"
	if s.lmtp {
		verb = "LHLO"
	}
	reply, err := smtpCommand(c, verb+" "+name, 250)
	if err != nil {
		return Capabilities{}, fmt.Errorf("%s: %w", verb, err)
	}
	return smtpCapabilities(reply), nil
}

func (s smtpStore) Login(c *wire.Conn, caps Capabilities, m sasl.Client) (Welcome, error) {
	if _, ok := m.(*XCLIENT); ok {
		return Welcome{}, nil
	}
	mechanism, initial, err := m.Start()
	if err != nil {
		return Welcome{}, err
	}
	if !slices.Contains(caps.Mechanisms, mechanism) {
		return Welcome{}, fmt.Errorf("store does not offer %s", mechanism)
	}
	c.Send("AUTH ", mechanism)
	if initial != nil {
		c.Send(" ", saslInitial(initial)) // RFC 4954 section 4
	}
	c.Send("\r\n")
	for range maxNoise {
		reply, err := c.ReadReply()
		switch {
		case err != nil:
			return Welcome{}, err
		case reply.Code == 235:
			return Welcome{}, nil
		case reply.Code != 334:
			return Welcome{}, smtpRefusal(reply)
		}
		response, err := nextResponse(m, reply.Lines[0])
		if err != nil {
			return Welcome{}, err
		}
		c.Send(wire.EncodeBase64(response), "\r\n")
	}
	return Welcome{}, errNoise
}

func (smtpStore) Leave(c *wire.Conn) { leave(c, "QUIT\r\n") }

// smtpCommand sends a command that must be answered with the code.
func smtpCommand(c *wire.Conn, command string, code int) (wire.Reply, error) {
	c.Send(command, "\r\n")
	return smtpReply(c, code)
}

func smtpReply(c *wire.Conn, code int) (wire.Reply, error) {
	reply, err := c.ReadReply()
	if err == nil && reply.Code != code {
		err = undenied(smtpRefusal(reply))
	}
	return reply, err
}

// smtpRefusal judges a negative reply: 535 alone is about credentials (RFC 4954 section 6).
func smtpRefusal(r wire.Reply) error {
	return &Refusal{Code: strconv.Itoa(r.Code), Text: r.Text(), Denied: r.Code == 535}
}

// smtpCapabilities reads the reply to EHLO or LHLO (RFC 5321 section 4.1.1.1): a name, then a keyword in each line.
func smtpCapabilities(r wire.Reply) Capabilities {
	var caps Capabilities
	for _, line := range r.Lines[1:] {
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
			continue // clients are told what stores can do in the stores' words
		}
		name, value, _ := strings.Cut(line, " ")
		if name = strings.ToUpper(name); name == "AUTH" {
			caps.Mechanisms = strings.Fields(strings.ToUpper(value))
		} else if !isNoKeyword(name) {
			caps.List = append(caps.List, Capability{name, value})
		}
	}
	return caps
}

// isNoKeyword tells of what servers write beside what they can do: AUTH in an old form, and Cyrus's "Ok SESSIONID=", which is
// another one each time.
func isNoKeyword(name string) bool {
	return name == "" || name == "OK" || strings.HasPrefix(name, "AUTH=")
}
