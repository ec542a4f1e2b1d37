package passwords

import (
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// schemes are known by the names that Dovecot gives them, and {MD5RAW} by Courier's. MYSQL and MYSQL-OLD are our own.
var schemes = map[string]func(v value, password string) (bool, error){
	"PLAIN": plain, "CLEAR": plain, "CLEARTEXT": plain,

	// What crypt(3) and argon2 write begins with its kind.
	"CRYPT": crypt, "DES-CRYPT": crypt, "MD5-CRYPT": crypt, "SHA256-CRYPT": crypt, "SHA512-CRYPT": crypt, "BLF-CRYPT": crypt,
	"ARGON2": crypt, "ARGON2I": crypt, "ARGON2ID": crypt,

	"MD5": md5Scheme, "PLAIN-MD5": digest(md5.New), "LDAP-MD5": digest(md5.New), "MD5RAW": digest(md5.New), "SMD5": salted(md5.New),
	"SHA": digest(sha1.New), "SHA1": digest(sha1.New), "SSHA": salted(sha1.New),
	"SHA256": digest(sha256.New), "SSHA256": salted(sha256.New),
	"SHA512": digest(sha512.New), "SSHA512": salted(sha512.New),
	"CRAM-MD5": cramMD5, "HMAC-MD5": cramMD5,

	"PBKDF2":      dovecotPBKDF2,
	"SCRAM-SHA-1": scram("SCRAM-SHA-1"), "SCRAM-SHA-256": scram("SCRAM-SHA-256"),

	"MYSQL": mysql, "MYSQL-OLD": mysqlOld,
}

func plain(v value, password string) (bool, error) { return equal(v.text, password), nil }

// digest is a hash of the password, in base64 or hex: their lengths tell which.
func digest(h func() hash.Hash) func(value, string) (bool, error) {
	size := h().Size()
	return func(v value, password string) (bool, error) {
		sum := v.text
		if !v.raw {
			decode := base64.StdEncoding.DecodeString
			if len(v.text) == hex.EncodedLen(size) {
				decode = hex.DecodeString
			}
			d, err := decoded(decode(v.text))
			if err != nil {
				return false, err
			}
			sum = d.text
		}
		if len(sum) != size {
			return false, errDamaged
		}
		return equal(sum, summed(h, password)), nil
	}
}

// salted is the hash of password and salt, and behind it the salt, in base64.
func salted(h func() hash.Hash) func(value, string) (bool, error) {
	size := h().Size()
	return func(v value, password string) (bool, error) {
		if !v.raw {
			var err error
			if v, err = decoded(base64.StdEncoding.DecodeString(v.text)); err != nil {
				return false, err
			}
		}
		if len(v.text) <= size {
			return false, errDamaged
		}
		return equal(v.text[:size], summed(h, password+v.text[size:])), nil
	}
}

func summed(h func() hash.Hash, text string) string {
	s := h()
	s.Write([]byte(text))
	return string(s.Sum(nil))
}

// md5Scheme: Dovecot's {MD5} is what crypt(3) writes, or a plain digest.
func md5Scheme(v value, password string) (bool, error) {
	if strings.HasPrefix(v.text, "$1$") {
		return crypt(v, password)
	}
	return digest(md5.New)(v, password)
}

// cramMD5 compares the states that HMAC-MD5 (RFC 2104) has after the padded key, in hex and little-endian: that of the outer
// hash and then that of the inner one.
func cramMD5(v value, password string) (bool, error) {
	if !v.raw {
		var err error
		if v, err = decoded(hex.DecodeString(v.text)); err != nil {
			return false, err
		}
	}
	if len(v.text) != 2*md5.Size {
		return false, errDamaged
	}
	if len(password) > md5.BlockSize {
		password = summed(md5.New, password)
	}
	states, err := paddedState(nil, password, 0x5c)
	if err == nil {
		states, err = paddedState(states, password, 0x36)
	}
	return equal(v.text, string(states)), err
}

func paddedState(states []byte, key string, pad byte) ([]byte, error) {
	var block [md5.BlockSize]byte
	copy(block[:], key)
	for i := range block {
		block[i] ^= pad
	}
	h := md5.New()
	h.Write(block[:])
	const magic = "md5\x01" // before the state in what the standard library marshals
	state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil || len(state) < len(magic)+md5.Size || string(state[:len(magic)]) != magic {
		return nil, fmt.Errorf("the state of MD5 cannot be read: %w", err)
	}
	for i := len(magic); i < len(magic)+md5.Size; i += 4 {
		states = binary.LittleEndian.AppendUint32(states, binary.BigEndian.Uint32(state[i:]))
	}
	return states, nil
}

func iterations(text string) (int, error) {
	n, err := strconv.Atoi(text)
	switch {
	case err != nil || n < 1:
		return 0, errDamaged
	case n > maxIterations:
		return 0, errDear
	}
	return n, nil
}

// dovecotPBKDF2 is $1$SALT$ITERATIONS$KEY: PBKDF2 (RFC 8018) with SHA-1, the salt as it stands, and the key in hex.
func dovecotPBKDF2(v value, password string) (bool, error) {
	fields := strings.Split(v.text, "$")
	if len(fields) != 5 || fields[0] != "" || fields[1] != "1" {
		return false, errDamaged
	}
	n, err := iterations(fields[3])
	if err != nil {
		return false, err
	}
	want, err := hex.DecodeString(fields[4])
	if err != nil || len(want) != sha1.Size {
		return false, errDamaged
	}
	key, err := pbkdf2.Key(sha1.New, password, []byte(fields[2]), n, sha1.Size)
	return equal(string(want), string(key)), err
}

// mysql is what PASSWORD() gives since MySQL 4.1: the SHA-1 of the SHA-1, in hex behind "*".
func mysql(v value, password string) (bool, error) {
	digits, starred := strings.CutPrefix(v.text, "*")
	want, err := hex.DecodeString(digits)
	if err != nil || !starred || len(want) != sha1.Size {
		return false, errDamaged
	}
	return equal(string(want), summed(sha1.New, summed(sha1.New, password))), nil
}

// mysqlOld is what PASSWORD() gave before, and OLD_PASSWORD() since: two numbers of 31 bits in hex, which blanks do not change.
func mysqlOld(v value, password string) (bool, error) {
	a, b, add := uint32(1345345333), uint32(0x12345671), uint32(7)
	for _, c := range []byte(password) {
		if c == ' ' || c == '\t' {
			continue
		}
		a ^= (a&63+add)*uint32(c) + a<<8
		b += b<<8 ^ a
		add += uint32(c)
	}
	const mask = 1<<31 - 1
	return equal(v.text, fmt.Sprintf("%08x%08x", a&mask, b&mask)), nil
}
