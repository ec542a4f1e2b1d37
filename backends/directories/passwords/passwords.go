// Package passwords tells whether a password is the one of which a table of users has stored a hash, in any of the forms that
// Dovecot, PostfixAdmin, web-cyradm, MySQL and crypt(3) write.
//
// A form that is not known, or damaged, is an error and never a wrong password: the user may be right. So is a hash that asks for
// more work than this process should do for one login. What is stored gets into no error.
package passwords

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
)

const (
	// maxStored is longer than what any scheme stores.
	maxStored = 1024
	// maxPassword is longer than any password. The work of some schemes grows with it.
	maxPassword = 1024
)

var (
	errDamaged = errors.New("the stored password is damaged")
	errDear    = errors.New("the stored password asks for too much work")
	// Passwords in the clear need {PLAIN}, because a hash of an unknown kind would be one, too.
	errNoScheme = errors.New("the stored password does not say its scheme, as {PLAIN} or {SHA256} before it does")
)

// slots bounds the verifications at one time: half of the processors stay with the sessions.
var slots = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

// Verify reports whether password is the one that is stored. It waits until others have been verified, as long as ctx allows.
// Nobody's password is empty, or of an account that is locked by "!" or "*" before or in the place of the hash, as in shadow(5).
func Verify(ctx context.Context, stored, password string) (bool, error) {
	if password == "" || len(password) > maxPassword || nobodys(stored) {
		return false, nil
	}
	if len(stored) > maxStored {
		return false, errDamaged
	}
	leave, err := turn(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	return verify(stored, password)
}

// turn waits for one of the slots.
func turn(ctx context.Context) (leave func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for other passwords to be verified: %w", context.Cause(ctx))
	}
}

// nobodys reports whether no password fits what is stored.
func nobodys(stored string) bool { return stored == "" || stored == "*" || stored[0] == '!' }

// Waste takes as long as Verify does with a stored password of that kind, so that nobody learns by a clock which users exist.
func Waste(ctx context.Context, like string) {
	_, _ = Verify(ctx, like, "an invented password")
}

func verify(stored, password string) (bool, error) {
	name, rest, err := split(stored)
	if err != nil {
		return false, err
	}
	name, encoding, _ := strings.Cut(name, ".")
	scheme, known := schemes[name]
	if !known {
		return false, fmt.Errorf("the stored password has an unknown scheme, {%s}", name)
	}
	v := value{text: rest}
	switch encoding {
	case "":
	case "B64", "BASE64":
		v, err = decoded(base64.StdEncoding.DecodeString(rest))
	case "HEX":
		v, err = decoded(hex.DecodeString(rest))
	default:
		err = fmt.Errorf("the stored password has an unknown encoding, {%s.%s}", name, encoding)
	}
	if err != nil {
		return false, err
	}
	return scheme(v, password)
}

// value is what stands behind a scheme.
type value struct {
	text string
	raw  bool // the scheme has named an encoding, which is undone
}

func decoded(data []byte, err error) (value, error) {
	if err != nil {
		return value{}, errDamaged
	}
	return value{string(data), true}, nil
}

// bare are the forms that need no scheme before them, because nothing else looks like them.
var bare = []struct {
	form   *regexp.Regexp
	scheme string
}{
	{regexp.MustCompile(`^\$`), "CRYPT"},
	{regexp.MustCompile(`^SCRAM-SHA-1\$`), "SCRAM-SHA-1"}, // RFC 5803, and PostgreSQL
	{regexp.MustCompile(`^SCRAM-SHA-256\$`), "SCRAM-SHA-256"},
	{regexp.MustCompile(`^[./0-9A-Za-z]{13}$`), "CRYPT"},                    // traditional DES
	{regexp.MustCompile(`^[0-9A-Fa-f]{32}$`), "PLAIN-MD5"},                  // web-cyradm's and PostfixAdmin's md5
	{regexp.MustCompile(`^\*[0-9A-Fa-f]{40}$`), "MYSQL"},                    // PASSWORD()
	{regexp.MustCompile(`^[0-7][0-9a-f]{7}[0-7][0-9a-f]{7}$`), "MYSQL-OLD"}, // OLD_PASSWORD(): two numbers of 31 bits
}

// prefix is a scheme as Dovecot and Courier write it.
var prefix = regexp.MustCompile(`^\{([0-9A-Za-z.-]{1,20})\}`)

// split parts a stored password into its scheme, in upper case, and the rest.
func split(stored string) (scheme, rest string, err error) {
	if found := prefix.FindStringSubmatch(stored); found != nil {
		return strings.ToUpper(found[1]), stored[len(found[0]):], nil
	}
	for _, b := range bare {
		if b.form.MatchString(stored) {
			return b.scheme, stored, nil
		}
	}
	return "", "", errNoScheme
}

// equal compares in a time that does not tell where the difference is.
func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
