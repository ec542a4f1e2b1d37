package proxy

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"sync"
)

// errScramName keeps a SCRAM exchange from a store whose form of the name is another one: the name is signed.
var errScramName = fmt.Errorf("%w: the name in a SCRAM exchange is not in the store's form", errPolicy)

// readScram reads the user's name out of `n,[a=authzid],n=user,r=nonce` (RFC 5802 section 7).
func readScram(first []byte, _ Ask) (*Attempt, error) {
	parts := strings.SplitN(string(first), ",", 5)
	if len(parts) < 4 {
		return nil, errSASL
	}
	authzid, err := gs2User(parts[0] + "," + parts[1])
	if err != nil {
		return nil, err
	}
	encoded, ok := strings.CutPrefix(parts[2], "n=") // "m=", a mandatory extension, is none that we know
	nonce, hasNonce := strings.CutPrefix(parts[3], "r=")
	user, err := saslName(encoded)
	if !ok || !hasNonce || nonce == "" || err != nil {
		return nil, errSASL
	}
	return &Attempt{User: user, Authzid: authzid, First: first}, nil
}

// scramShape knows what challenges of the stores look like, to make some that look the same. The zero value looks like
// most stores. Safe for concurrent use.
type scramShape struct {
	mu         sync.Mutex
	alphabet   string // of the store's part of the nonce
	nonce      int    // its length
	salt       int    // octets
	iterations string
	varies     bool // one user gets another salt each time: the store has the password, and no stored keys

	user, lastSalt string // of the last challenge
}

const (
	base64Alphabet    = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	printableAlphabet = base64Alphabet + "!\"#$%&'()*-.:;<=>?@[\\]^_`{|}~" // RFC 5802 section 7: all but the comma
)

// learn looks at what a store answered to a client's first message: `r=nonce,s=salt,i=count`.
func (s *scramShape) learn(a *Attempt, challenge []byte) {
	parts := strings.Split(string(challenge), ",")
	if len(parts) != 3 {
		return // the server's last message, or a bearer token's error
	}
	nonce, isNonce := strings.CutPrefix(parts[0], "r="+clientNonce(a))
	salt, isSalt := strings.CutPrefix(parts[1], "s=")
	iterations, isCount := strings.CutPrefix(parts[2], "i=")
	octets, err := base64.StdEncoding.DecodeString(salt)
	if !isNonce || !isSalt || !isCount || err != nil || len(octets) > sha512.Size {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nonce, s.salt, s.iterations = len(nonce), len(octets), iterations
	if s.alphabet = base64Alphabet; strings.Trim(nonce, base64Alphabet+"=") != "" {
		s.alphabet = printableAlphabet
	}
	if a.User == s.user {
		s.varies = salt != s.lastSalt
	}
	s.user, s.lastSalt = a.User, salt
}

func clientNonce(a *Attempt) string {
	_, nonce, _ := strings.Cut(string(a.First), ",r=")
	nonce, _, _ = strings.Cut(nonce, ",")
	return nonce
}

// scramSecret salts the challenges that nobody can answer. It lives as long as the process, so that a name keeps its salt.
var scramSecret = rand.Text()

// imitate makes a challenge for a user who is not to be found.
func (s *scramShape) imitate(a *Attempt) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	mac := hmac.New(sha512.New, []byte(scramSecret))
	mac.Write([]byte(a.User))
	if s.varies {
		mac.Write([]byte(rand.Text()))
	}
	salt := mac.Sum(nil)[:cmp.Or(s.salt, 16)]
	nonce := randomText(cmp.Or(s.alphabet, base64Alphabet), cmp.Or(s.nonce, 24))
	return fmt.Appendf(nil, "r=%s%s,s=%s,i=%s", clientNonce(a), nonce,
		base64.StdEncoding.EncodeToString(salt), cmp.Or(s.iterations, "4096"))
}

func randomText(alphabet string, length int) string {
	text := make([]byte, length)
	for i := range text {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			panic(err) // crypto/rand never fails
		}
		text[i] = alphabet[n.Int64()]
	}
	return string(text)
}
