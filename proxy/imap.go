package proxy

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"jackdaw/backends"
	"jackdaw/internal/wire"
)

// imapDialogue talks IMAP to a client up to its login (RFC 9051 sections 3.1 and 3.2; RFC 3501 is the same here).
type imapDialogue struct {
	talk
	tag string // of the command that is being answered
}

func newIMAP(s *session) Dialogue { return &imapDialogue{talk: talk{session: s}} }

func imapBye(r Reason) string {
	switch r {
	case ReasonTooLong:
		return "* BYE [TOOBIG] " + r.sentence() + "\r\n" // RFC 7888 section 4
	case ReasonFull:
		return "* BYE [LIMIT] " + r.sentence() + "\r\n" // RFC 5530 section 3
	case ReasonBarred:
		return "* BYE [UNAVAILABLE] " + r.sentence() + "\r\n"
	}
	return "* BYE " + r.sentence() + "\r\n"
}

func (d *imapDialogue) Bye(r Reason) { d.conn.Send(imapBye(r)) }

func (d *imapDialogue) Greet() error {
	d.conn.Send("* OK [CAPABILITY ", d.capabilities(), "] ", d.hostname(), " ready\r\n")
	return d.conn.Flush()
}

// capabilities lists what a client can do now: what the stores have in common, and what the proxy does itself.
func (d *imapDialogue) capabilities() string {
	caps := d.announced()
	var names []string
	for _, c := range imapPromise(caps) {
		names = append(names, c.Name)
	}
	if d.canStartTLS() {
		names = append(names, "STARTTLS")
	}
	if !d.mayLogin() {
		names = append(names, "LOGINDISABLED") // RFC 9051 section 6.2.3
	}
	for _, m := range d.mechanisms(caps) {
		names = append(names, "AUTH="+m)
	}
	return strings.Join(names, " ")
}

// imapKnown are the extensions that a store and a client use with each other after login, so that a relay keeps them.
// An intermediary must not pass on names that it does not know (RFC 2971 section 5). Not here, on purpose: COMPRESS and
// UNAUTHENTICATE (RFC 4978, RFC 8437), which a relay cannot honour, and referrals, which would lead past it (RFC 2221).
var imapKnown = strings.Fields(`IMAP4rev2 LITERAL+ LITERAL- ENABLE IDLE NAMESPACE UIDPLUS UNSELECT CHILDREN MOVE BINARY CATENATE
	MULTIAPPEND REPLACE CONDSTORE QRESYNC ESEARCH ESORT SEARCHRES SEARCH=FUZZY MULTISEARCH WITHIN SORT SORT=DISPLAY
	THREAD=REFERENCES THREAD=ORDEREDSUBJECT THREAD=REFS LIST-EXTENDED LIST-STATUS LIST-MYRIGHTS LIST-METADATA
	STATUS=SIZE SPECIAL-USE CREATE-SPECIAL-USE METADATA METADATA-SERVER NOTIFY OBJECTID PREVIEW SAVEDATE SAVELIMIT
	QUOTA ACL UTF8=ACCEPT I18NLEVEL=1 I18NLEVEL=2 LANGUAGE PARTIAL INPROGRESS UIDONLY JMAPACCESS`)

// imapPlace has the places in imapKnown, by names in upper case.
var imapPlace = func() map[string]int {
	places := make(map[string]int, len(imapKnown))
	for i, name := range imapKnown {
		places[strings.ToUpper(name)] = i
	}
	return places
}()

// imapPromise lists what the proxy does itself, and what a client can do with all of the stores after login.
func imapPromise(caps backends.Capabilities) []backends.Capability {
	has := make([]bool, len(imapKnown)) // which of them
	for _, c := range caps.List {
		if place, known := imapPlace[c.Name]; known {
			has[place] = true
		}
	}
	if has[imapPlace["LITERAL+"]] {
		has[imapPlace["LITERAL-"]] = false // RFC 7888 section 5: never both
	}
	list := make([]backends.Capability, 0, 3+len(caps.List))
	list = append(list, backends.Capability{Name: "IMAP4rev1"}, backends.Capability{Name: "SASL-IR"}, backends.Capability{Name: "ID"})
	for i, name := range imapKnown {
		if has[i] {
			list = append(list, backends.Capability{Name: name})
		}
	}
	return list
}

// imapCommands are the commands before login. A handler returns an attempt, or nil if it has answered.
var imapCommands = map[string]func(*imapDialogue, *wire.Args) (*Attempt, error){
	"CAPABILITY":   (*imapDialogue).capability,
	"NOOP":         (*imapDialogue).noop,
	"ID":           (*imapDialogue).id,
	"LOGOUT":       (*imapDialogue).logout,
	"STARTTLS":     (*imapDialogue).startTLS,
	"LOGIN":        (*imapDialogue).login,
	"AUTHENTICATE": (*imapDialogue).authenticate,
}

func (d *imapDialogue) Next() (*Attempt, error) {
	args, err := d.conn.ReadCommand(d.invite)
	if err == nil || errors.Is(err, errUninvited) {
		return d.command(args) // which finds that no login is possible, and says so, if errUninvited
	}
	return nil, d.unreadable(args, err)
}

// unreadable answers a command that could not be read, if it can be answered.
func (d *imapDialogue) unreadable(args *wire.Args, err error) error {
	d.parseTag(args)
	if literal, ok := errors.AsType[*wire.LiteralError](err); ok && literal.Sync {
		return d.bad("literal too big") // RFC 7888 section 4: the client waits for an invitation, and can be told
	}
	if errors.Is(err, wire.ErrBadLine) {
		return d.bad("NUL or bare CR")
	}
	return fatal(err)
}

// errUninvited keeps a literal with a password in it from being sent in the clear.
var errUninvited = errors.New("no secrets without TLS")

// invite answers the announcement of a synchronising literal (RFC 9051 section 7.5).
func (d *imapDialogue) invite(soFar *wire.Args) error {
	place := *soFar
	if d.parseTag(&place); strings.EqualFold(imapName(&place), "LOGIN") && !d.mayLogin() {
		return errUninvited
	}
	d.conn.Send("+ OK\r\n")
	return nil
}

// parseTag reads the tag (RFC 9051 section 9: any ASTRING-CHAR but "+"). "*" stands for none that can be echoed.
func (d *imapDialogue) parseTag(args *wire.Args) bool {
	tag, ok := args.Atom()
	if d.tag = "*"; !ok || len(tag) > 128 || strings.Contains(tag, "+") || !args.Space() {
		return false
	}
	d.tag = tag
	return true
}

func imapName(args *wire.Args) string {
	name, _ := args.Atom()
	return strings.ToUpper(name)
}

func (d *imapDialogue) command(args *wire.Args) (*Attempt, error) {
	if !d.parseTag(args) {
		return nil, d.bad("tag missing")
	}
	handle, ok := imapCommands[imapName(args)]
	switch {
	case ok:
		return handle(d, args)
	case fromBrowser(args):
		return nil, errNonsense
	}
	return nil, d.bad("command unknown or not possible before login")
}

// ok, no and bad answer the command at hand. text begins with a response code where there is one.
func (d *imapDialogue) ok(text string) { d.conn.Send(d.tag, " OK ", text, "\r\n") }
func (d *imapDialogue) no(text string) { d.conn.Send(d.tag, " NO ", text, "\r\n") }
func (d *imapDialogue) bad(text string) error {
	d.conn.Send(d.tag, " BAD ", text, "\r\n")
	return d.mistake()
}

func (d *imapDialogue) capability(args *wire.Args) (*Attempt, error) {
	if !args.End() {
		return nil, d.bad("CAPABILITY takes no argument")
	}
	d.conn.Send("* CAPABILITY ", d.capabilities(), "\r\n")
	d.ok("done")
	return nil, nil
}

func (d *imapDialogue) noop(args *wire.Args) (*Attempt, error) {
	if !args.End() {
		return nil, d.bad("NOOP takes no argument")
	}
	d.ok("done")
	return nil, nil
}

func (d *imapDialogue) logout(args *wire.Args) (*Attempt, error) {
	if !args.End() {
		return nil, d.bad("LOGOUT takes no argument")
	}
	d.conn.Send("* BYE logging out\r\n")
	d.ok("done")
	return nil, errLogout
}

// id answers ID (RFC 2971). What the client says of itself is checked for its form and forgotten.
func (d *imapDialogue) id(args *wire.Args) (*Attempt, error) {
	if !args.Space() || !imapParameters(args) || !args.End() {
		return nil, d.bad("malformed ID")
	}
	d.conn.Send("* ID (\"name\" \"jackdaw\")\r\n")
	d.ok("done")
	return nil, nil
}

// imapParameters reads NIL or a list of strings with values (RFC 2971 section 3.3: at most 30 pairs, of 30 and 1,024 octets).
func imapParameters(args *wire.Args) bool {
	if !args.Take("(") {
		return strings.EqualFold(imapName(args), "NIL")
	}
	for n := 0; !args.Take(")"); n++ {
		if n == 30 || n > 0 && !args.Space() {
			return false
		}
		field, ok := args.String()
		if !ok || len(field) > 30 || !args.Space() {
			return false
		}
		value, ok := args.String()
		if len(value) > 1024 || !ok && !strings.EqualFold(imapName(args), "NIL") {
			return false
		}
	}
	return true
}

func (d *imapDialogue) startTLS(args *wire.Args) (*Attempt, error) {
	switch {
	case !args.End():
		return nil, d.bad("STARTTLS takes no argument")
	case !d.canStartTLS():
		return nil, d.bad("TLS is active") // RFC 9051 section 6.2.1
	}
	d.ok("begin TLS")
	return nil, d.handshake()
}

// login reads LOGIN (RFC 9051 section 6.2.3).
func (d *imapDialogue) login(args *wire.Args) (*Attempt, error) {
	if !d.mayLogin() {
		return nil, d.needTLS()
	}
	ok := args.Space()
	user, okUser := args.AString()
	ok = ok && okUser && args.Space()
	password, okPassword := args.AString()
	if !ok || !okPassword || !args.End() {
		return nil, d.bad("malformed LOGIN")
	}
	return passwordAttempt("", user, password)
}

// needTLS refuses before the secret is said, where the client lets us (RFC 5530 section 3).
func (d *imapDialogue) needTLS() error {
	d.no("[PRIVACYREQUIRED] TLS first")
	return d.mistake()
}

// authenticate reads AUTHENTICATE with or without an initial response (RFC 9051 section 6.2.2, RFC 4959).
func (d *imapDialogue) authenticate(args *wire.Args) (*Attempt, error) {
	if !d.mayLogin() {
		return nil, d.needTLS()
	}
	ok := args.Space()
	name := imapName(args)
	var initial []byte
	if args.Space() {
		var err error
		if initial, err = initialResponse(args.Rest()); err != nil {
			return nil, err
		}
	}
	if !ok || !args.End() {
		return nil, d.bad("malformed AUTHENTICATE")
	}
	if !slices.Contains(d.mechanisms(d.announced()), name) {
		d.no("mechanism not supported")
		return nil, d.mistake()
	}
	return begin(name, initial, d.ask)
}

func (d *imapDialogue) Accept(w backends.Welcome) error {
	d.ok("[CAPABILITY " + w.Capabilities + "] Logged in")
	return d.conn.Flush()
}

// imapCodes are the codes of RFC 5530 section 3 for what is not simply unavailable.
var imapCodes = map[Reason]string{ReasonDenied: "AUTHENTICATIONFAILED", ReasonInUse: "INUSE",
	ReasonNotPermitted: "AUTHORIZATIONFAILED", ReasonUserFull: "LIMIT"}

func (d *imapDialogue) Refuse(err error) error {
	if syntax, ok := errors.AsType[*syntaxError](err); ok {
		return d.bad(syntax.what) // RFC 9051 section 6.2.2: BAD also for a cancelled exchange
	}
	reason := reasonFor(err)
	d.no("[" + cmp.Or(imapCodes[reason], "UNAVAILABLE") + "] " + reason.sentence())
	return nil
}
