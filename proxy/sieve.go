package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"jackdaw/backends"
	"jackdaw/internal/wire"
)

// sieveDialogue talks ManageSieve to a client up to its login (RFC 5804).
type sieveDialogue struct{ talk }

func newSieve(s *session) Dialogue { return &sieveDialogue{talk{session: s}} }

func sieveBye(r Reason) string {
	switch r {
	case ReasonShutdown, ReasonMoved, ReasonFull, ReasonBarred:
		return `BYE (TRYLATER) "` + r.sentence() + "\"\r\n"
	}
	return `BYE "` + r.sentence() + "\"\r\n"
}

func (d *sieveDialogue) Bye(r Reason) { d.conn.Send(sieveBye(r)) }

// Greet sends the capabilities (RFC 5804 section 1.7).
func (d *sieveDialogue) Greet() error {
	d.capabilities()
	d.ok(d.hostname() + " ready")
	return d.conn.Flush()
}

// sieveFallback is promised as long as no store was reached.
var sieveFallback = backends.Capabilities{List: []backends.Capability{{Name: "VERSION", Value: "1.0"}}}

// sieveKnown are the capabilities of RFC 5804 section 1.7 and of the registry that are true after login through a relay.
// Not here, on purpose: OWNER, which belongs to a login, UNAUTHENTICATE, which the guard below keeps from the store, and
// those that the proxy says of itself.
var sieveKnown = []string{"SIEVE", "NOTIFY", "EXTLISTS", "LANGUAGE", "MAXREDIRECTS", "VERSION"}

// sievePromise lists what the proxy says of itself, and what a client can do with all of the stores after login.
func sievePromise(caps backends.Capabilities) []backends.Capability {
	if len(caps.List) == 0 {
		caps = sieveFallback
	}
	list := []backends.Capability{{Name: "IMPLEMENTATION", Value: "jackdaw"}}
	for _, name := range sieveKnown {
		// RFC 5804 section 1.7: SIEVE must be there, were it empty.
		if value, ok := caps.Value(name); ok || name == "SIEVE" {
			list = append(list, backends.Capability{Name: name, Value: value})
		}
	}
	return list
}

func (d *sieveDialogue) capabilities() {
	caps := d.announced()
	for _, c := range sievePromise(caps) {
		d.line(c.Name, c.Value)
	}
	d.line("SASL", strings.Join(d.mechanisms(caps), " "))
	if d.canStartTLS() {
		d.conn.Send("\"STARTTLS\"\r\n")
	}
}

// line sends one capability. What a store said may hold anything but what ends a quoted string.
func (d *sieveDialogue) line(name, value string) {
	if quoted, err := wire.Quote(value); err == nil {
		d.conn.Send(`"`, name, `" `, quoted, "\r\n")
	}
}

// sieveCommands are the commands before login (RFC 5804 section 2). A handler returns an attempt, or nil if it has answered.
var sieveCommands = map[string]func(*sieveDialogue, *wire.Args) (*Attempt, error){
	"CAPABILITY":   (*sieveDialogue).capability,
	"NOOP":         (*sieveDialogue).noop,
	"LOGOUT":       (*sieveDialogue).logout,
	"STARTTLS":     (*sieveDialogue).startTLS,
	"AUTHENTICATE": (*sieveDialogue).authenticate,
}

func (d *sieveDialogue) Next() (*Attempt, error) {
	args, err := d.conn.ReadCommand(noInvitation)
	switch {
	case err == nil:
		return d.command(args)
	case errors.Is(err, wire.ErrBadLine):
		return nil, d.no("NUL or bare CR")
	}
	return nil, fatal(err)
}

var errSync = errors.New("clients use non-synchronising literals only")

// noInvitation refuses synchronising literals: clients have none (RFC 5804 section 4).
func noInvitation(*wire.Args) error { return errSync }

func (d *sieveDialogue) command(args *wire.Args) (*Attempt, error) {
	name, _ := args.Atom()
	handle, ok := sieveCommands[strings.ToUpper(name)]
	switch {
	case ok:
		return handle(d, args)
	case fromBrowser(args):
		return nil, errNonsense
	}
	return nil, d.no("command unknown or not possible before login")
}

func (d *sieveDialogue) ok(text string) { d.conn.Send(`OK "`, text, "\"\r\n") }

// no answers a mistake.
func (d *sieveDialogue) no(text string) error {
	d.conn.Send(`NO "`, text, "\"\r\n")
	return d.mistake()
}

func (d *sieveDialogue) capability(args *wire.Args) (*Attempt, error) {
	if !args.End() {
		return nil, d.no("CAPABILITY takes no argument")
	}
	d.capabilities()
	d.ok("done")
	return nil, nil
}

// noop gives back the client's string, to bring the two into step (RFC 5804 section 2.13).
func (d *sieveDialogue) noop(args *wire.Args) (*Attempt, error) {
	if args.End() {
		d.ok("done")
		return nil, nil
	}
	ok := args.Space()
	echo, isString := args.String()
	if !ok || !isString || !args.End() {
		return nil, d.no("malformed NOOP")
	}
	d.conn.Send(fmt.Sprintf("OK (TAG {%d}\r\n%s) \"done\"\r\n", len(echo), echo))
	return nil, nil
}

func (d *sieveDialogue) logout(args *wire.Args) (*Attempt, error) {
	if !args.End() {
		return nil, d.no("LOGOUT takes no argument")
	}
	d.ok("logging out")
	return nil, errLogout
}

func (d *sieveDialogue) startTLS(args *wire.Args) (*Attempt, error) {
	switch {
	case !args.End():
		return nil, d.no("STARTTLS takes no argument")
	case !d.canStartTLS():
		return nil, d.no("TLS is active")
	}
	d.ok("begin TLS")
	if err := d.handshake(); err != nil {
		return nil, err
	}
	return nil, d.Greet() // RFC 5804 section 2.2: the capabilities come again, unasked
}

// authenticate reads AUTHENTICATE (RFC 5804 section 2.1): the initial response is a string with base64 in it.
func (d *sieveDialogue) authenticate(args *wire.Args) (*Attempt, error) {
	if !d.mayLogin() {
		d.conn.Send("NO (ENCRYPT-NEEDED) \"TLS first\"\r\n")
		return nil, d.mistake()
	}
	ok := args.Space()
	name, isString := args.String()
	var initial []byte
	if ok && args.Space() {
		encoded, isString := args.String()
		var err error
		if initial, err = wire.DecodeBase64(encoded); err != nil {
			return nil, errBase64
		}
		ok = isString
	}
	if !ok || !isString || !args.End() {
		return nil, d.no("malformed AUTHENTICATE")
	}
	name = strings.ToUpper(name)
	if !slices.Contains(d.mechanisms(d.announced()), name) {
		return nil, d.no("mechanism not supported")
	}
	return begin(name, initial, d.ask)
}

// ask sends a challenge; challenge and response are strings (RFC 5804 section 2.1).
func (d *sieveDialogue) ask(challenge []byte) ([]byte, error) {
	d.conn.Send(wire.ServerString(challenge), "\r\n")
	args, err := d.conn.ReadCommand(noInvitation)
	switch {
	case errors.Is(err, wire.ErrBadLine):
		return nil, errSASL
	case err != nil:
		return nil, fatal(err)
	}
	response, ok := args.String()
	switch {
	case !ok || !args.End():
		return nil, errSASL
	case response == "*":
		return nil, errCancelled
	}
	decoded, err := wire.DecodeBase64(response)
	if err != nil {
		return nil, errBase64
	}
	return decoded, nil
}

func (d *sieveDialogue) Accept(w backends.Welcome) error {
	if w.Final != nil {
		d.conn.Send("OK (SASL ", wire.ServerString(w.Final), ")\r\n") // RFC 5804 section 2.1
	} else {
		d.ok("Logged in")
	}
	return d.conn.Flush()
}

func (d *sieveDialogue) Refuse(err error) error {
	if syntax, ok := errors.AsType[*syntaxError](err); ok {
		return d.no(syntax.what)
	}
	reason := reasonFor(err)
	code := ""
	if reason != ReasonDenied && reason != ReasonNotPermitted {
		code = "(TRYLATER) " // RFC 5804 section 1.3
	}
	d.conn.Send("NO ", code, `"`, reason.sentence(), "\"\r\n")
	return nil
}
