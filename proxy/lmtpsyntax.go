package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"jackdaw/backends"
	"jackdaw/internal/wire"
)

// replyError is what a client is answered whose mail goes no further than to us.
type replyError struct {
	code int
	text string
}

func (e *replyError) Error() string     { return fmt.Sprintf("%d %s", e.code, e.text) }
func (e *replyError) reply() wire.Reply { return wire.Reply{Code: e.code, Lines: []string{e.text}} }

var (
	errPath     = &replyError{501, "5.1.3 Malformed address"}
	errNotASCII = &replyError{553, "5.6.7 Address is not ASCII, and SMTPUTF8 was not asked for"}
	errParam    = &replyError{501, "5.5.4 Malformed parameter"}
	errUnknown  = &replyError{555, "5.5.4 Parameter was not offered"}
	errTooBig   = &replyError{552, "5.3.4 Message is bigger than SIZE allows"}
)

// readMail reads "FROM:", a path and parameters (RFC 5321 section 4.1.1.2).
func (d *lmtpDialogue) readMail(args string) (wire.Path, []backends.Parameter, error) {
	from, params, err := d.readPath(args, "FROM:", mailParams)
	if err != nil {
		return from, nil, err
	}
	if _, ok := find(params, "SMTPUTF8"); !ok && !from.ASCII() {
		return from, nil, errNotASCII
	}
	if size, ok := find(params, "SIZE"); ok && d.exceeds(size) {
		return from, nil, errTooBig
	}
	return from, params, nil
}

// readRcpt reads "TO:", a path and parameters (RFC 5321 section 4.1.1.3).
func (d *lmtpDialogue) readRcpt(args string, utf8 bool) (wire.Path, []backends.Parameter, error) {
	to, params, err := d.readPath(args, "TO:", rcptParams)
	original, _ := find(params, "ORCPT")
	switch {
	case err != nil:
		return to, nil, err
	case to == wire.Path{}:
		return to, nil, errPath
	case !utf8 && !(to.ASCII() && isASCII(original)):
		return to, nil, errNotASCII
	}
	return to, params, nil
}

// exceeds tells whether a message is bigger than what was promised: 0, or no number, promises no limit (RFC 1870 section 4). A
// size of more than 64 bits is read as the greatest of them.
func (d *lmtpDialogue) exceeds(size string) bool {
	promised, _ := backends.Capabilities{List: d.promised}.Value("SIZE")
	limit, _ := strconv.ParseUint(promised, 10, 64)
	n, _ := strconv.ParseUint(size, 10, 64)
	return limit > 0 && n > limit
}

// readPath reads what MAIL and RCPT have in common. A blank in front of the path, which RFC 5321 section 3.3 knows of, is
// taken.
func (d *lmtpDialogue) readPath(text, begin string, known map[string]lmtpParam) (wire.Path, []backends.Parameter, error) {
	if len(text) < len(begin) || !strings.EqualFold(text[:len(begin)], begin) {
		return wire.Path{}, nil, &replyError{501, "5.5.2 " + begin + " is missing"}
	}
	args := wire.NewArgs(text[len(begin):])
	args.Spaces()
	path, ok := args.Path()
	if !ok {
		return path, nil, errPath
	}
	var params []backends.Parameter
	for !args.End() {
		name, value, ok := args.Param()
		if !ok {
			return path, nil, errParam
		}
		kind, ok := known[name]
		if !ok || !(backends.Capabilities{List: d.promised}).Has(kind.needs) {
			return path, nil, errUnknown
		}
		if _, twice := find(params, name); twice {
			return path, nil, errParam
		}
		if value, ok = kind.read(value); !ok {
			return path, nil, errParam
		}
		optional := name == "SIZE" || value == "7BIT"
		params = append(params, backends.Parameter{Name: name, Value: value, Needs: kind.needs, Optional: optional})
	}
	return path, params, nil
}

func find(params []backends.Parameter, name string) (string, bool) {
	i := slices.IndexFunc(params, func(p backends.Parameter) bool { return p.Name == name })
	if i < 0 {
		return "", false
	}
	return params[i].Value, true
}

// lmtpParam is a parameter that belongs to an extension. read checks a value and writes it anew.
type lmtpParam struct {
	needs string
	read  func(value string) (string, bool)
}

var mailParams = map[string]lmtpParam{
	"SIZE":     {"SIZE", readNumber},                                                // RFC 1870 section 3
	"BODY":     {"8BITMIME", oneOf("7BIT", "8BITMIME")},                             // RFC 6152 section 2
	"SMTPUTF8": {"SMTPUTF8", oneOf("")},                                             // RFC 6531 section 3.4
	"RET":      {"DSN", oneOf("FULL", "HDRS")},                                      // RFC 3461 section 4.3
	"ENVID":    {"DSN", func(v string) (string, bool) { return readXText(v, 100) }}, // section 4.4
}

var rcptParams = map[string]lmtpParam{
	"NOTIFY": {"DSN", readNotify}, // RFC 3461 section 4.1
	"ORCPT":  {"DSN", readORCPT},  // section 4.2
}

func oneOf(values ...string) func(string) (string, bool) {
	return func(value string) (string, bool) {
		value = strings.ToUpper(value)
		return value, slices.Contains(values, value)
	}
}

// readNumber reads up to 20 digits, which may be more than a number of 64 bits.
func readNumber(value string) (string, bool) {
	digits := strings.Trim(value, "0123456789") == ""
	return value, digits && value != "" && len(value) <= 20
}

func readXText(value string, limit int) (string, bool) {
	text, ok := wire.ReadXText(value)
	return wire.XText(text), ok && len(text) <= limit
}

func readNotify(value string) (string, bool) {
	value = strings.ToUpper(value)
	if value == "NEVER" {
		return value, true
	}
	var seen []string
	for event := range strings.SplitSeq(value, ",") {
		if !slices.Contains([]string{"SUCCESS", "FAILURE", "DELAY"}, event) || slices.Contains(seen, event) {
			return "", false
		}
		seen = append(seen, event)
	}
	return value, true
}

// readORCPT reads a type and an address, in which what is not ASCII stands as it is (RFC 6533 section 3).
func readORCPT(value string) (string, bool) {
	kind, address, ok := strings.Cut(value, ";")
	if !ok || kind == "" || strings.Trim(strings.ToLower(kind), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return "", false
	}
	if isASCII(address) {
		address, ok = readXText(address, 500)
		return kind + ";" + address, ok
	}
	ascii := strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return 'x'
		}
		return r
	}, address)
	_, ok = wire.ReadXText(ascii)
	return value, ok && len(value) <= 500 && strings.EqualFold(kind, "utf-8")
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// replyTo chooses what a client hears of mail that could not go on. Only what is known to stay wrong is a permanent failure.
func replyTo(err error, otherwise string) wire.Reply {
	if own, ok := errors.AsType[*replyError](err); ok {
		return own.reply()
	}
	_, refused := errors.AsType[*backends.Refusal](err)
	switch {
	case errors.Is(err, backends.ErrName), errors.Is(err, backends.ErrNotFound), errors.Is(err, backends.ErrRefused):
		return wire.Reply{Code: 550, Lines: []string{"5.1.1 No such mailbox here"}}
	case errors.Is(err, errShutdown):
		otherwise = "4.3.2 " + ReasonShutdown.sentence()
	case errors.Is(err, backends.ErrNoService):
		otherwise = "4.3.5 No mail can be taken for this mailbox now"
	case errors.Is(err, backends.ErrBroken):
		otherwise = "4.3.3 Store can do less than was offered, try again later"
	case refused:
		otherwise = "4.3.0 Store takes no mail now, try again later"
	}
	return wire.Reply{Code: 451, Lines: []string{otherwise}}
}
