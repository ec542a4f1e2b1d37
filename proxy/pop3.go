package proxy

import (
	"errors"
	"slices"
	"strings"

	"jackdaw/backends"
	"jackdaw/internal/wire"
)

// pop3Dialogue talks POP3 to a client up to its login (RFC 1939 section 4, RFC 2449).
type pop3Dialogue struct {
	talk
	user string // whom USER has named; "" for nobody
}

func newPOP3(s *session) Dialogue { return &pop3Dialogue{talk: talk{session: s}} }

// pop3Bye is silent: a client expects no line but an answer (RFC 1939 section 3).
func pop3Bye(Reason) string { return "" }

// Bye answers the line that cannot be read to its end, and takes the place of a greeting, or of the answer to a login. All other
// ends come behind an answer, or without a question.
func (d *pop3Dialogue) Bye(r Reason) {
	switch r {
	case ReasonTooLong, ReasonUnwelcome:
		d.no(r.sentence())
	case ReasonFull, ReasonBarred:
		d.no("[SYS/TEMP] " + r.sentence()) // RFC 3206 section 4
	}
}

// Greet has no timestamp, which would offer APOP (RFC 1939 section 7): the proof in it is for who has made the timestamp.
func (d *pop3Dialogue) Greet() error {
	d.ok(d.hostname() + " ready")
	return d.conn.Flush()
}

// pop3Known are the capabilities of RFC 2449 that are true after login through a relay. Not here, on purpose: EXPIRE and
// LOGIN-DELAY, which say how the user's own store is run, and which that store says when it is asked after login; those
// that the proxy says of itself; and LANG (RFC 6856 section 3), which would choose the language of answers that the proxy has
// in one language alone.
var pop3Known = []string{"TOP", "UIDL", "PIPELINING", "RESP-CODES", "UTF8"}

// pop3Kept lists what a client can do with all of the stores after login.
func pop3Kept(caps backends.Capabilities) []backends.Capability {
	var list []backends.Capability
	for _, name := range pop3Known {
		if caps.Has(name) {
			list = append(list, backends.Capability{Name: name})
		}
	}
	return list
}

// pop3Promise lists what the stores keep, and what the proxy does itself: no login fails for the credentials without [AUTH]
// (RFC 3206 section 6).
func pop3Promise(caps backends.Capabilities) []backends.Capability {
	return append(pop3Kept(caps), backends.Capability{Name: "AUTH-RESP-CODE"},
		backends.Capability{Name: "IMPLEMENTATION", Value: "jackdaw"})
}

// pop3Commands are the commands before login; NOOP is none of them (RFC 1939 section 5). A handler returns an attempt, or
// nil if it has answered.
var pop3Commands = map[string]func(*pop3Dialogue, *wire.Args) (*Attempt, error){
	"CAPA": (*pop3Dialogue).capa,
	"QUIT": (*pop3Dialogue).quit,
	"STLS": (*pop3Dialogue).stls,
	"USER": (*pop3Dialogue).name,
	"PASS": (*pop3Dialogue).pass,
	"AUTH": (*pop3Dialogue).auth,
	"UTF8": (*pop3Dialogue).utf8,
}

func (d *pop3Dialogue) Next() (*Attempt, error) {
	args, err := d.conn.ReadText()
	switch {
	case err == nil:
		return d.command(args)
	case errors.Is(err, wire.ErrBadLine):
		return nil, d.bad("NUL or bare CR")
	}
	return nil, fatal(err)
}

func (d *pop3Dialogue) command(args *wire.Args) (*Attempt, error) {
	name, _ := args.Atom()
	handle, ok := pop3Commands[strings.ToUpper(name)]
	switch {
	case ok:
		return handle(d, args)
	case fromBrowser(args):
		return nil, errNonsense
	}
	return nil, d.bad("command unknown or not possible before login")
}

// ok, no and bad answer the command at hand. text begins with a response code where there is one.
func (d *pop3Dialogue) ok(text string) { d.conn.Send("+OK ", text, "\r\n") }
func (d *pop3Dialogue) no(text string) { d.conn.Send("-ERR ", text, "\r\n") }
func (d *pop3Dialogue) bad(text string) error {
	d.no(text)
	return d.mistake()
}

// list answers in several lines (RFC 1939 section 3). None of ours begins with the "." that ends them.
func (d *pop3Dialogue) list(text string, lines []string) {
	d.ok(text)
	for _, line := range lines {
		d.conn.Send(line, "\r\n")
	}
	d.conn.Send(".\r\n")
}

// capa lists what a client can do now (RFC 2449 section 5).
func (d *pop3Dialogue) capa(args *wire.Args) (*Attempt, error) {
	if !args.End() {
		return nil, d.bad("CAPA takes no argument")
	}
	caps := d.announced()
	d.promised = pop3Kept(caps)
	var lines []string
	for _, c := range pop3Promise(caps) {
		lines = append(lines, c.String())
	}
	if d.canStartTLS() {
		lines = append(lines, "STLS")
	}
	if d.mayLogin() {
		lines = append(lines, "USER", "SASL "+strings.Join(d.mechanisms(caps), " "))
	}
	d.list("capabilities follow", lines)
	return nil, nil
}

func (d *pop3Dialogue) quit(args *wire.Args) (*Attempt, error) {
	if !args.End() {
		return nil, d.bad("QUIT takes no argument")
	}
	d.ok("logging out")
	return nil, errLogout
}

// stls begins TLS (RFC 2595 section 4), and the session anew.
func (d *pop3Dialogue) stls(args *wire.Args) (*Attempt, error) {
	switch {
	case !args.End():
		return nil, d.bad("STLS takes no argument")
	case !d.canStartTLS():
		return nil, d.bad("TLS is active")
	}
	d.user, d.promised, d.peer.UTF8 = "", nil, false
	d.ok("begin TLS")
	return nil, d.handshake()
}

// needTLS refuses without [AUTH]: the credentials may be right.
func (d *pop3Dialogue) needTLS() error { return d.bad("TLS first") }

// name reads USER. Any name is as good as another, lest somebody learn which there are.
func (d *pop3Dialogue) name(args *wire.Args) (*Attempt, error) {
	if !d.mayLogin() {
		return nil, d.needTLS()
	}
	ok := args.Space()
	user := args.Rest()
	if !ok || user == "" {
		return nil, d.bad("malformed USER")
	}
	d.user = user
	d.ok("now PASS")
	return nil, nil
}

// pass reads PASS. The password is the rest of the line, blanks and all (RFC 1939 section 7), and the name is good for one.
func (d *pop3Dialogue) pass(args *wire.Args) (*Attempt, error) {
	switch {
	case !d.mayLogin():
		return nil, d.needTLS()
	case !args.Space():
		return nil, d.bad("malformed PASS")
	case d.user == "":
		return nil, d.bad("USER first")
	}
	user := d.user
	d.user = ""
	return passwordAttempt("", user, args.Rest())
}

// utf8 is a wish for the time after login that must be said before (RFC 6856 section 2): the store hears it from us.
func (d *pop3Dialogue) utf8(args *wire.Args) (*Attempt, error) {
	if !args.End() || !d.announced().Has("UTF8") {
		return nil, d.bad("UTF8 is not possible here")
	}
	d.peer.UTF8 = true
	d.ok("UTF-8 after login")
	return nil, nil
}

// auth reads AUTH with or without an initial response (RFC 5034 section 4). Alone it asks for the mechanisms, as clients did
// before there was CAPA.
func (d *pop3Dialogue) auth(args *wire.Args) (*Attempt, error) {
	mechanisms := d.mechanisms(d.announced())
	switch {
	case args.End():
		d.list("mechanisms follow", mechanisms)
		return nil, nil
	case !d.mayLogin():
		return nil, d.needTLS()
	}
	args.Space()
	name, _ := args.Atom()
	var initial []byte
	if args.Space() {
		var err error
		if initial, err = initialResponse(args.Rest()); err != nil {
			return nil, err
		}
	}
	if !args.End() {
		return nil, d.bad("malformed AUTH")
	}
	if name = strings.ToUpper(name); !slices.Contains(mechanisms, name) {
		return nil, d.bad("mechanism not supported")
	}
	return begin(name, initial, d.ask)
}

func (d *pop3Dialogue) Accept(backends.Welcome) error {
	d.ok("Logged in")
	return d.conn.Flush()
}

// pop3Codes are the response codes of RFC 2449 section 8 and RFC 3206.
var pop3Codes = map[Reason]string{
	ReasonDenied:       "[AUTH] ",
	ReasonUnavailable:  "[SYS/TEMP] ",
	ReasonBroken:       "[SYS/PERM] ",
	ReasonInUse:        "[IN-USE] ",
	ReasonNotPermitted: "[SYS/PERM] ",
	ReasonTooSoon:      "[LOGIN-DELAY] ",
	ReasonUserFull:     "[IN-USE] ",
}

func (d *pop3Dialogue) Refuse(err error) error {
	if syntax, ok := errors.AsType[*syntaxError](err); ok {
		return d.bad(syntax.what)
	}
	reason := reasonFor(err)
	d.no(pop3Codes[reason] + reason.sentence())
	return nil
}
