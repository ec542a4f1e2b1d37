package passwords

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"regexp"
	"strconv"
	"strings"

	cryptkeys "github.com/go-crypt/x/crypt"
	"github.com/go-crypt/x/yescrypt"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// What one verification may cost at most: a second or two, and a quarter of a gigabyte. Variables, so that fuzzing need not wait.
var (
	maxRounds     = 2_000_000         // of SHA-crypt, whose default is 5,000
	maxBcryptCost = 15                // a binary logarithm; usual are 5 to 12
	maxMemory     = uint64(256 << 10) // of argon2 and yescrypt, in KiB
	maxPasses     = uint64(2 << 20)   // of argon2: passes times KiB
	maxThreads    = uint64(16)        // of argon2, each of which is a goroutine
	maxIterations = 2_000_000         // of PBKDF2
)

// kinds are what stands between the first dollar signs.
var kinds = map[string]func(stored, password string) (bool, error){
	"1": md5Crypt, "5": shaCrypt(sha256.New, 43), "6": shaCrypt(sha512.New, 86),
	"2a": blowfish, "2b": blowfish, "2y": blowfish,
	"argon2i": argon2Crypt(argon2.Key), "argon2id": argon2Crypt(argon2.IDKey),
	"y": yescryptCrypt,
}

// crypt compares with what crypt(3) or argon2 wrote.
func crypt(v value, password string) (bool, error) {
	if !strings.HasPrefix(v.text, "$") {
		return desCrypt(v.text, password)
	}
	kind, _, _ := strings.Cut(v.text[1:], "$")
	verify, known := kinds[kind]
	switch {
	case known:
		return verify(v.text, password)
	case kindName.MatchString(kind):
		return false, fmt.Errorf("the stored password is of an unknown kind, $%s$", kind)
	}
	return false, errDamaged
}

var kindName = regexp.MustCompile(`^[0-9a-z-]{1,10}$`)

// encoded reports whether s is so many digits of crypt(3)'s own base64.
func encoded(s string, digits int) bool {
	return len(s) == digits && strings.Trim(s, digits64) == ""
}

// md5Crypt is $1$SALT$KEY. What may follow behind another dollar sign counts for nothing.
func md5Crypt(stored, password string) (bool, error) {
	fields := strings.SplitN(stored, "$", 5)
	if len(fields) < 4 || !encoded(fields[3], 22) {
		return false, errDamaged
	}
	salt := fields[2][:min(len(fields[2]), 8)]
	return equal(fields[3], string(cryptkeys.KeyMD5Crypt([]byte(password), []byte(salt)))), nil
}

// shaCrypt is $5$SALT$KEY or $5$rounds=N$SALT$KEY, as in Ulrich Drepper's "Unix crypt using SHA-256 and SHA-512".
func shaCrypt(h func() hash.Hash, digits int) func(stored, password string) (bool, error) {
	return func(stored, password string) (bool, error) {
		fields, rounds := strings.Split(stored, "$"), 5000
		if len(fields) == 5 {
			n, err := strconv.Atoi(strings.TrimPrefix(fields[2], "rounds="))
			switch {
			case err != nil || n < 1000 || !strings.HasPrefix(fields[2], "rounds="):
				return false, errDamaged
			case n > maxRounds:
				return false, errDear
			}
			fields, rounds = append(fields[:2], fields[3:]...), n
		}
		if len(fields) != 4 || !encoded(fields[3], digits) {
			return false, errDamaged
		}
		salt := fields[2][:min(len(fields[2]), 16)]
		return equal(fields[3], string(cryptkeys.KeySHACrypt(h, []byte(password), []byte(salt), rounds))), nil
	}
}

// blowfish is $2y$COST$ and 53 digits, of salt and key. $2a$ and $2b$ differ in bugs that are not ours.
func blowfish(stored, password string) (bool, error) {
	cost, err := bcrypt.Cost([]byte(stored))
	switch {
	case err != nil || !encoded(stored[min(len(stored), 7):], 53):
		return false, errDamaged
	case cost > maxBcryptCost:
		return false, errDear
	}
	err = bcrypt.CompareHashAndPassword([]byte(stored), []byte(password))
	if errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		return false, nil
	}
	return err == nil, err
}

// argon2Form is what the reference implementation of argon2 (RFC 9106) writes. Version 19 is the only one that the library knows.
var argon2Form = regexp.MustCompile(`^\$argon2id?\$v=19\$m=(\d{1,9}),t=(\d{1,9}),p=(\d{1,9})\$([^$]+)\$([^$]+)$`)

func argon2Crypt(key func(password, salt []byte, time, memory uint32, threads uint8, size uint32) []byte) func(stored, password string) (bool, error) {
	return func(stored, password string) (bool, error) {
		found := argon2Form.FindStringSubmatch(stored)
		if found == nil {
			return false, errDamaged
		}
		var cost [3]uint64
		for i := range cost {
			cost[i], _ = strconv.ParseUint(found[1+i], 10, 32) // they are digits, and few
		}
		memory, passes, threads := cost[0], cost[1], cost[2]
		salt, errSalt := base64.RawStdEncoding.DecodeString(found[4])
		want, err := base64.RawStdEncoding.DecodeString(found[5])
		switch {
		case errSalt != nil || err != nil || len(want) < 4 || passes < 1 || threads < 1: // RFC 9106 section 3.1
			return false, errDamaged
		case memory > maxMemory || memory*passes > maxPasses || threads > maxThreads:
			return false, errDear
		}
		made := key([]byte(password), salt, uint32(passes), uint32(memory), uint8(threads), uint32(len(want)))
		return equal(string(want), string(made)), nil
	}
}

// yescryptCrypt is $y$PARAMETERS$SALT$KEY, the default of Debian's passwd. The library knows the parameters that begin with j:
// then follow, as digits, the binary logarithm of N less 1 and r less 1, and 128·N·r bytes are what they need.
func yescryptCrypt(stored, password string) (bool, error) {
	fields := strings.Split(stored, "$")
	if len(fields) != 5 || len(fields[2]) != 3 || !encoded(fields[4], 43) {
		return false, errDamaged
	}
	_, logN, r, err := yescrypt.DecodeSetting([]byte(fields[2]))
	switch {
	case err != nil || logN > 32:
		return false, errDamaged
	case uint64(r)<<logN*128>>10 > maxMemory:
		return false, errDear
	}
	made, err := yescrypt.Hash([]byte(password), []byte(stored))
	if err != nil {
		return false, errDamaged
	}
	return equal(stored, string(made)), nil
}
