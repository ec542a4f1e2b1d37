package proxy

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-sasl"

	"jackdaw/backends"
	"jackdaw/internal/wire"
)

// Attempt is a client's request to log in. Names and secret stand as the client wrote them.
type Attempt struct {
	Mechanism string
	User      string
	Authzid   string
	Secret    string // password or token; "" for SCRAM, whose secret never comes here
	// External says that the client's certificate proves the user, whom it names.
	External bool
	// First is the client's first message of an exchange that is relayed, octet by octet.
	First []byte
	// Ask continues the exchange with the client.
	Ask   Ask
	asked bool            // the exchange was continued after the attempt began
	heard time.Time       // when the client's last word came
	proof *backends.Proof // of a verification that the attempt has passed
}

// Ask sends a challenge to the client and returns its response: a *syntaxError if the client cancels or sends what is no
// base64, another error if the connection fails.
type Ask func(challenge []byte) (response []byte, err error)

// syntaxError is a mistake in the client's exchange; the dialogue answers it in its own words and goes on.
type syntaxError struct{ what string }

func (e *syntaxError) Error() string { return e.what }

func isSyntax(err error) bool {
	_, ok := errors.AsType[*syntaxError](err)
	return ok
}

var (
	errCancelled = &syntaxError{"cancelled"}
	errBase64    = &syntaxError{"malformed base64"}
	errSASL      = &syntaxError{"malformed SASL message"}
)

// saslResponse decodes a line that answers a challenge.
func saslResponse(line string) ([]byte, error) {
	if line == "*" {
		return nil, errCancelled
	}
	response, err := wire.DecodeBase64(line)
	if err != nil {
		return nil, errBase64
	}
	return response, nil
}

// maxSASL bounds a SASL message, decoded. RFC 4954 section 4: lines of 12,288 octets of base64.
const maxSASL = 12288 / 4 * 3

// mechanism reads one client's exchange up to the point where its user is known.
type mechanism struct {
	name        string
	read        func(first []byte, ask Ask) (*Attempt, error)
	always      bool // offered whatever the stores offer: what it carries fits into any login
	serverFirst bool // begins with a challenge of its own, where the others have an empty one
}

// mechanisms are offered in this order. CRAM-MD5, DIGEST-MD5 and APOP begin with the store's challenge, before anybody can
// know which store; GSSAPI, NTLM and all with channel binding end at the proxy.
var mechanisms = []mechanism{
	{name: "PLAIN", read: readPlain, always: true},
	{name: "LOGIN", read: readLogin, always: true, serverFirst: true},
	{name: "OAUTHBEARER", read: readOAuthBearer},
	{name: "XOAUTH2", read: readXOAuth2},
	{name: "SCRAM-SHA-256", read: readScram},
	{name: "SCRAM-SHA-1", read: readScram},
	{name: "EXTERNAL", read: readExternal}, // offered to those who have shown a certificate, whatever the stores offer
}

// Offered lists the mechanisms that a client may use, where the stores, or who verifies in their place, have these capabilities.
func Offered(caps backends.Capabilities) []string {
	var names []string
	for _, m := range mechanisms {
		if m.always || m.name != "EXTERNAL" && slices.Contains(caps.Mechanisms, m.name) {
			names = append(names, m.name)
		}
	}
	return names
}

// initialResponse decodes an initial response; "=" is the empty one (RFC 4959 section 3, RFC 4954 section 4, RFC 5034
// section 4).
func initialResponse(encoded string) ([]byte, error) {
	if encoded == "=" {
		return []byte{}, nil
	}
	response, err := wire.DecodeBase64(encoded)
	if err != nil || encoded == "" {
		return nil, errBase64
	}
	return response, nil
}

// begin reads an exchange. initial is nil where the client sent no initial response.
func begin(name string, initial []byte, ask Ask) (*Attempt, error) {
	i := slices.IndexFunc(mechanisms, func(m mechanism) bool { return m.name == name })
	m := mechanisms[i]
	bounded := func(challenge []byte) ([]byte, error) {
		response, err := ask(challenge)
		if err == nil && len(response) > maxSASL {
			return nil, errSASL
		}
		return response, err
	}
	if initial == nil && !m.serverFirst {
		var err error
		if initial, err = bounded(nil); err != nil {
			return nil, err
		}
	}
	if len(initial) > maxSASL {
		return nil, errSASL
	}
	a, err := m.read(initial, bounded)
	if err != nil {
		return nil, err
	}
	a.Mechanism, a.heard = m.name, time.Now() // not a part of what was read
	a.Ask = func(challenge []byte) ([]byte, error) {
		a.asked = true
		response, err := bounded(challenge)
		a.heard = time.Now()
		return response, err
	}
	return a, nil
}

// readPlain reads `[authzid] NUL authcid NUL passwd` (RFC 4616 section 2).
func readPlain(first []byte, _ Ask) (*Attempt, error) {
	parts := bytes.Split(first, []byte{0})
	if len(parts) != 3 {
		return nil, errSASL
	}
	return passwordAttempt(string(parts[0]), string(parts[1]), string(parts[2]))
}

// readLogin asks for name and password (draft-murchison-sasl-login). An initial response is the name.
func readLogin(name []byte, ask Ask) (*Attempt, error) {
	var err error
	if name == nil {
		if name, err = ask([]byte("Username:")); err != nil {
			return nil, err
		}
	}
	password, err := ask([]byte("Password:"))
	if err != nil {
		return nil, err
	}
	return passwordAttempt("", string(name), string(password))
}

// passwordAttempt refuses what cannot travel in every protocol.
func passwordAttempt(authzid, user, password string) (*Attempt, error) {
	if strings.ContainsAny(password, "\x00\r\n") {
		return nil, errSASL
	}
	return &Attempt{Mechanism: "PLAIN", Authzid: authzid, User: user, Secret: password, heard: time.Now()}, nil
}

// readOAuthBearer reads `n,a=user,^Ahost=...^Aport=...^Aauth=Bearer token^A^A` (RFC 7628 section 3.1). Without a=, only
// the token knows the user, and we do not read tokens.
func readOAuthBearer(first []byte, _ Ask) (*Attempt, error) {
	header, rest, ok := bytes.Cut(first, []byte{1})
	if !ok {
		return nil, errSASL
	}
	user, err := gs2User(string(header))
	if err != nil {
		return nil, err
	}
	return bearerAttempt(user, rest)
}

// readXOAuth2 reads `user=name^Aauth=Bearer token^A^A` (Google's XOAUTH2).
func readXOAuth2(first []byte, _ Ask) (*Attempt, error) {
	header, rest, _ := bytes.Cut(first, []byte{1})
	user, ok := strings.CutPrefix(string(header), "user=")
	if !ok {
		return nil, errSASL
	}
	return bearerAttempt(user, rest)
}

func bearerAttempt(user string, fields []byte) (*Attempt, error) {
	for _, field := range bytes.Split(fields, []byte{1}) {
		scheme, token, _ := strings.Cut(string(field), " ")
		if strings.EqualFold(scheme, "auth=Bearer") && user != "" && validToken(token) {
			return &Attempt{User: user, Secret: token}, nil
		}
	}
	return nil, errSASL
}

// validToken allows b64token (RFC 6750 section 2.1) and what else is visible ASCII.
func validToken(token string) bool {
	return token != "" && !strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' })
}

// gs2User reads the name out of `n,a=name,` (RFC 5801 section 4). A "p" asks for channel binding, which ends here.
func gs2User(header string) (string, error) {
	parts := strings.Split(header, ",")
	if len(parts) < 2 || parts[0] != "n" && parts[0] != "y" {
		return "", errSASL
	}
	if parts[1] == "" {
		return "", nil
	}
	name, ok := strings.CutPrefix(parts[1], "a=")
	if !ok {
		return "", errSASL
	}
	return saslName(name)
}

// saslName decodes =2C and =3D, and refuses any other "=" (RFC 5802 section 5.1).
func saslName(name string) (string, error) {
	plain := decodeName.Replace(name)
	if encodeName(plain) != name {
		return "", errSASL
	}
	return plain, nil
}

var (
	decodeName = strings.NewReplacer("=2C", ",", "=3D", "=")
	escapeName = strings.NewReplacer("=", "=3D", ",", "=2C")
)

func encodeName(name string) string { return escapeName.Replace(name) }

// relayed tells that the exchange goes on between client and store, and cannot carry another name.
func (a *Attempt) relayed() bool { return a.First != nil }

// client says to a store what the client said to us, with the name in the store's form; by is who acts as that user, if it is
// somebody else. Where the exchange is relayed, observe sees the store's challenges.
func (a *Attempt) client(name, by string, observe func(challenge []byte)) (sasl.Client, error) {
	user, authzid := name, ""
	switch {
	case by == "":
	case a.Authzid == "":
		user = name + "*" + by
	default:
		user, authzid = by, name
	}
	if a.givesPassword() {
		return &backends.Plain{Authzid: authzid, User: user, Password: a.Secret}, nil
	}
	if a.relayed() && (a.User != user || a.Authzid != "" && a.Authzid != name) {
		return nil, errScramName
	}
	return &relayClient{a, observe, a.first(user)}, nil
}

// exchange is what a verifier needs; nil where the client has given a password, or nothing. A name that is signed stays as the
// client wrote it.
func (a *Attempt) exchange(user string, observe func(challenge []byte)) (*backends.Exchange, error) {
	switch {
	case a.givesPassword() || a.External:
		return nil, nil
	case a.relayed() && a.Authzid != "" && a.Authzid != a.User:
		return nil, errScramName
	case a.relayed():
		user = a.User
	}
	client := &relayClient{a, observe, a.first(user)}
	return &backends.Exchange{Name: user, First: client.first, Ask: client.Next}, nil
}

// givesPassword tells that the secret is a password.
func (a *Attempt) givesPassword() bool { return a.Mechanism == "PLAIN" || a.Mechanism == "LOGIN" }

// first is the client's first message, with another name where that can be.
func (a *Attempt) first(user string) []byte {
	switch a.Mechanism {
	case "OAUTHBEARER":
		return []byte("n,a=" + encodeName(user) + ",\x01auth=Bearer " + a.Secret + "\x01\x01")
	case "XOAUTH2":
		return []byte("user=" + user + "\x01auth=Bearer " + a.Secret + "\x01\x01")
	}
	return a.First
}

// relayClient hands every challenge of the store, or of a verifier, to the client, and every response back: a SCRAM exchange, or a
// bearer token's error with the dummy response to it (RFC 7628 section 3.2.2).
type relayClient struct {
	attempt *Attempt
	observe func(challenge []byte)
	first   []byte
}

func (r *relayClient) Start() (string, []byte, error) { return r.attempt.Mechanism, r.first, nil }

func (r *relayClient) Next(challenge []byte) ([]byte, error) {
	r.observe(challenge)
	response, err := r.attempt.Ask(challenge)
	if err != nil {
		return nil, &clientError{err}
	}
	return response, nil
}

// clientError is what went wrong on the client's side of an exchange that the other side carried.
type clientError struct{ error }

func (e *clientError) Unwrap() error { return e.error }
