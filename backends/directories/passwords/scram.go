package passwords

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"regexp"
	"slices"
	"strings"

	"github.com/xdg-go/stringprep"
)

// Keys are what a server of SCRAM keeps of a password (RFC 5802 section 3).
type Keys struct {
	Salt                 []byte
	Iterations           int
	StoredKey, ServerKey []byte
	// Made says that they were made just now, of a password in the clear.
	Made bool
}

// ErrNoKeys means that nothing is stored of a password that a mechanism could do with.
var ErrNoKeys = errors.New("what is stored of the password is of no use for this mechanism")

// scramHashes are the hashes of SCRAM's mechanisms.
var scramHashes = map[string]func() hash.Hash{"SCRAM-SHA-1": sha1.New, "SCRAM-SHA-256": sha256.New}

// scramIterations is what RFC 7677 section 4 asks for at least.
const scramIterations = 4096

// KeysOf returns the keys that are stored for a mechanism of SCRAM. Where the password itself is stored they are made of it, with a
// salt that must be the user's own; that waits until others have been verified, as long as ctx allows.
func KeysOf(ctx context.Context, mechanism, stored string, salt []byte) (Keys, error) {
	if nobodys(stored) {
		return Keys{}, ErrNoKeys
	}
	if len(stored) > maxStored {
		return Keys{}, errDamaged
	}
	scheme, rest, err := split(stored)
	if err != nil {
		return Keys{}, err
	}
	switch scheme {
	case mechanism:
		return readKeys(mechanism, rest)
	case "PLAIN", "CLEAR", "CLEARTEXT":
		leave, err := turn(ctx)
		if err != nil {
			return Keys{}, err
		}
		defer leave()
		k, err := makeKeys(mechanism, prepared(rest), salt, scramIterations)
		k.Made = true
		return k, err
	}
	return Keys{}, ErrNoKeys
}

// scram compares with the keys that a password makes. RFC 5802 section 5.1 has it prepared first, which Dovecot does not do.
func scram(mechanism string) func(value, string) (bool, error) {
	return func(v value, password string) (bool, error) {
		want, err := readKeys(mechanism, v.text)
		if err != nil {
			return false, err
		}
		for _, password := range slices.Compact([]string{password, prepared(password)}) {
			made, err := makeKeys(mechanism, password, want.Salt, want.Iterations)
			if err != nil || equal(string(want.StoredKey), string(made.StoredKey)) {
				return err == nil, err
			}
		}
		return false, nil
	}
}

// prepared is the password after SASLprep (RFC 4013); one that this does not allow stays as it is.
func prepared(password string) string {
	if p, err := stringprep.SASLprep.Prepare(password); err == nil {
		return p
	}
	return password
}

// keysForm is ITERATIONS,SALT,STOREDKEY,SERVERKEY as Dovecot writes it, or MECHANISM$ITERATIONS:SALT$STOREDKEY:SERVERKEY of RFC 5803
// section 2, all but the number in base64.
var keysForm = regexp.MustCompile(`^(?:SCRAM-SHA-[0-9]+\$)?([0-9]{1,12})[,:]([^,:$]*)[,$]([^,:$]*)[,:]([^,:$]*)$`)

func readKeys(mechanism, text string) (Keys, error) {
	found := keysForm.FindStringSubmatch(text)
	if found == nil {
		return Keys{}, errDamaged
	}
	n, err := iterations(found[1])
	if err != nil {
		return Keys{}, err
	}
	k := Keys{Iterations: n}
	for i, key := range []*[]byte{&k.Salt, &k.StoredKey, &k.ServerKey} {
		if *key, err = base64.StdEncoding.DecodeString(strings.TrimSpace(found[2+i])); err != nil {
			return Keys{}, errDamaged
		}
	}
	if size := scramHashes[mechanism]().Size(); len(k.StoredKey) != size || len(k.ServerKey) != size {
		return Keys{}, errDamaged
	}
	return k, nil
}

func makeKeys(mechanism, password string, salt []byte, iterations int) (Keys, error) {
	h := scramHashes[mechanism]
	salted, err := pbkdf2.Key(h, password, salt, iterations, h().Size())
	if err != nil {
		return Keys{}, err
	}
	mac := func(text string) []byte {
		m := hmac.New(h, salted)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	return Keys{
		Salt: salt, Iterations: iterations,
		StoredKey: []byte(summed(h, string(mac("Client Key")))), ServerKey: mac("Server Key"),
	}, nil
}
