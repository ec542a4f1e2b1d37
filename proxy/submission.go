package proxy

import (
	"errors"
	"slices"
	"strings"

	"jackdaw/backends"
	"jackdaw/internal/wire"
)

// submissionDialogue talks SMTP to a client up to its login (RFC 6409, RFC 5321, RFC 4954). No command here sends mail: until
// a store has let the client in, there is no way to one.
type submissionDialogue struct {
	smtpTalk
	extended bool // the client has said EHLO
}

func newSubmission(s *session) Dialogue {
	return &submissionDialogue{smtpTalk: smtpTalk{talk{session: s}}}
}

func (d *submissionDialogue) Bye(r Reason) { d.conn.Send(smtpBye(r)) }

func (d *submissionDialogue) Greet() error {
	d.say("220 ", d.hostname(), " ESMTP ready")
	return d.conn.Flush()
}

// submissionKnown are the extensions that a client uses towards the store after login, so that a relay keeps them. Clients do
// not ask again after AUTH, so what is promised here must hold there. Not here, on purpose: BURL, for which the store would
// have to trust us; XCLIENT and XFORWARD, which are ours to say; ETRN, VRFY and HELP, which need no promise.
var submissionKnown = strings.Fields(`PIPELINING SIZE 8BITMIME BINARYMIME CHUNKING ENHANCEDSTATUSCODES DSN SMTPUTF8
	DELIVERBY FUTURERELEASE MT-PRIORITY REQUIRETLS`)

// submissionPromise lists what a client can do with all of the stores.
func submissionPromise(caps backends.Capabilities) []backends.Capability {
	var list []backends.Capability
	for _, name := range submissionKnown {
		if value, ok := caps.Value(name); ok {
			list = append(list, backends.Capability{Name: name, Value: value})
		}
	}
	return list
}

// submissionCommands are the commands before login. A handler returns an attempt, or nil if it has answered.
var submissionCommands = map[string]func(*submissionDialogue, string) (*Attempt, error){
	"EHLO":     (*submissionDialogue).ehlo,
	"HELO":     (*submissionDialogue).helo,
	"STARTTLS": (*submissionDialogue).startTLS,
	"AUTH":     (*submissionDialogue).auth,
	"NOOP":     (*submissionDialogue).noop,
	"RSET":     (*submissionDialogue).rset,
	"VRFY":     (*submissionDialogue).vrfy,
	"HELP":     (*submissionDialogue).help,
	"QUIT":     (*submissionDialogue).quit,
	"MAIL":     (*submissionDialogue).needLogin,
	"RCPT":     (*submissionDialogue).needLogin,
	"DATA":     (*submissionDialogue).needLogin,
	"EXPN":     (*submissionDialogue).needLogin,
	"ETRN":     (*submissionDialogue).needLogin,
	"BDAT":     (*submissionDialogue).bdat,
}

func (d *submissionDialogue) Next() (*Attempt, error) {
	line, err := d.conn.ReadSMTP()
	switch {
	case err == nil:
		return d.command(line)
	case errors.Is(err, wire.ErrBadLine):
		return nil, d.mistaken("500 5.5.2 NUL, bare CR or bare LF in a line")
	}
	return nil, fatal(err)
}

func (d *submissionDialogue) command(line string) (*Attempt, error) {
	verb, args, _ := strings.Cut(line, " ")
	handle, ok := submissionCommands[strings.ToUpper(verb)]
	switch {
	case ok:
		return handle(d, strings.TrimRight(args, " "))
	case fromBrowser(wire.NewArgs(line)):
		return nil, errNonsense
	}
	return nil, d.mistaken("500 5.5.1 Command unknown")
}

// ehlo lists what the client can do now: what the stores have in common, and what the proxy does itself.
func (d *submissionDialogue) ehlo(name string) (*Attempt, error) {
	if !d.hello(name) {
		return nil, d.mistaken("501 5.5.4 EHLO needs the name of a host")
	}
	d.extended = true
	caps := d.announced()
	d.promised = submissionPromise(caps)
	lines := []string{d.hostname()}
	for _, c := range d.promised {
		lines = append(lines, c.String())
	}
	if d.canStartTLS() {
		lines = append(lines, "STARTTLS")
	}
	if mechanisms := d.mechanisms(caps); mechanisms != nil {
		lines = append(lines, "AUTH "+strings.Join(mechanisms, " "))
	}
	d.list(lines)
	return nil, nil
}

func (d *submissionDialogue) helo(name string) (*Attempt, error) {
	if !d.hello(name) {
		return nil, d.mistaken("501 5.5.4 HELO needs the name of a host")
	}
	d.extended, d.promised = false, nil
	d.say("250 ", d.hostname())
	return nil, nil
}

func (d *submissionDialogue) noop(string) (*Attempt, error) {
	d.say("250 2.0.0 done")
	return nil, nil
}

// rset has no transaction to abort; what EHLO said stays (RFC 5321 section 4.1.1.5).
func (d *submissionDialogue) rset(args string) (*Attempt, error) {
	if args != "" {
		return nil, d.mistaken("501 5.5.4 RSET takes no argument")
	}
	d.say("250 2.0.0 done")
	return nil, nil
}

// vrfy tells nothing (RFC 5321 section 3.5.3).
func (d *submissionDialogue) vrfy(args string) (*Attempt, error) {
	if args == "" {
		return nil, d.mistaken("501 5.5.4 VRFY needs an argument")
	}
	d.say("252 2.1.5 Cannot tell; send the message and see")
	return nil, nil
}

func (d *submissionDialogue) help(string) (*Attempt, error) {
	d.say("214 2.0.0 RFC 6409 and RFC 4954 tell")
	return nil, nil
}

func (d *submissionDialogue) quit(args string) (*Attempt, error) {
	if args != "" {
		return nil, d.mistaken("501 5.5.4 QUIT takes no argument")
	}
	d.say("221 2.0.0 ", d.hostname(), " closes")
	return nil, errLogout
}

// needLogin refuses what only a client that is logged in may do, and says what is missing (RFC 3207 section 4, RFC 4954
// section 6).
func (d *submissionDialogue) needLogin(string) (*Attempt, error) {
	if !d.mayLogin() {
		return nil, d.needTLS()
	}
	return nil, d.mistaken("530 5.7.0 Authentication required")
}

func (d *submissionDialogue) needTLS() error { return d.mistaken("530 5.7.0 STARTTLS first") }

var errBDAT = errors.New("client sent BDAT before its login")

// bdat ends the session: its chunk is on the way, and must not be read as commands (RFC 3030 section 2).
func (d *submissionDialogue) bdat(string) (*Attempt, error) { return nil, errBDAT }

func (d *submissionDialogue) startTLS(args string) (*Attempt, error) {
	switch {
	case args != "":
		return nil, d.mistaken("501 5.5.4 STARTTLS takes no argument")
	case !d.canStartTLS():
		return nil, d.mistaken("503 5.5.1 TLS is active")
	}
	d.say("220 2.0.0 begin TLS")
	// RFC 3207 section 4.2: what the client said before is forgotten, its name with it.
	d.extended, d.promised, d.peer.Hello = false, nil, ""
	return nil, d.handshake()
}

// auth reads AUTH with or without an initial response (RFC 4954 section 4).
func (d *submissionDialogue) auth(args string) (*Attempt, error) {
	name, encoded, hasInitial := strings.Cut(args, " ")
	name = strings.ToUpper(name)
	switch {
	case !d.mayLogin():
		return nil, d.needTLS()
	case !d.extended:
		return nil, d.mistaken("503 5.5.1 EHLO first")
	case !slices.Contains(d.mechanisms(d.announced()), name):
		return nil, d.mistaken("504 5.5.4 Mechanism not supported")
	}
	var initial []byte
	if hasInitial {
		var err error
		if initial, err = initialResponse(encoded); err != nil {
			return nil, err
		}
	}
	return begin(name, initial, d.ask)
}

func (d *submissionDialogue) ask(challenge []byte) ([]byte, error) {
	d.say("334 ", wire.EncodeBase64(challenge))
	line, err := d.conn.ReadSMTP()
	switch {
	case errors.Is(err, wire.ErrBadLine):
		return nil, errSASL
	case err != nil:
		return nil, fatal(err)
	}
	return saslResponse(line)
}

func (d *submissionDialogue) Accept(backends.Welcome) error {
	d.say("235 2.7.0 Logged in")
	return d.conn.Flush()
}

func (d *submissionDialogue) Refuse(err error) error {
	if syntax, ok := errors.AsType[*syntaxError](err); ok {
		code := "501 5.5.2 "
		if syntax == errCancelled {
			code = "501 5.7.0 " // RFC 4954 section 4
		}
		return d.mistaken(code + syntax.what)
	}
	reason := reasonFor(err)
	code := "454 4.7.0 "
	switch reason {
	case ReasonDenied:
		code = "535 5.7.8 "
	case ReasonNotPermitted:
		code = "535 5.7.1 "
	}
	d.say(code, reason.sentence())
	return nil
}
