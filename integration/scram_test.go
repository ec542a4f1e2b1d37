package integration

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"strings"
	"testing"
)

// scram is the client's side of SCRAM-SHA-256 (RFC 7677), without channel binding.
type scram struct {
	user, password string

	bare, nonce string // client-first-message-bare, and the client's part of the nonce
	serverKey   []byte
	signed      string
}

func (s *scram) first() string {
	s.nonce = rand.Text()
	s.bare = "n=" + s.user + ",r=" + s.nonce
	return "n,," + s.bare
}

// final answers the server's first message.
func (s *scram) final(t testing.TB, first string) string {
	t.Helper()
	fields := attributes(first)
	salt, err := base64.StdEncoding.DecodeString(fields["s"])
	if err != nil {
		t.Fatal(err)
	}
	rounds, err := strconv.Atoi(fields["i"])
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(fields["r"], s.nonce) {
		t.Fatalf("the server's nonce %q is not for %q", fields["r"], s.nonce)
	}
	salted, err := pbkdf2.Key(sha256.New, s.password, salt, rounds, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	clientKey := mac(salted, "Client Key")
	stored := sha256.Sum256(clientKey)
	without := "c=" + encode("n,,") + ",r=" + fields["r"]
	s.serverKey = mac(salted, "Server Key")
	s.signed = s.bare + "," + first + "," + without
	proof := make([]byte, sha256.Size)
	subtle.XORBytes(proof, clientKey, mac(stored[:], s.signed))
	return without + ",p=" + encode(string(proof))
}

// verify checks the server's last message: the server knows the password, too.
func (s *scram) verify(t testing.TB, last string) {
	t.Helper()
	if want := "v=" + encode(string(mac(s.serverKey, s.signed))); last != want {
		t.Fatalf("the server ends with %q, want %q", last, want)
	}
}

func attributes(message string) map[string]string {
	all := make(map[string]string)
	for field := range strings.SplitSeq(message, ",") {
		name, value, _ := strings.Cut(field, "=")
		all[name] = value
	}
	return all
}

func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}

func encode(message string) string { return base64.StdEncoding.EncodeToString([]byte(message)) }

func decode(t testing.TB, text string) string {
	t.Helper()
	message, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(message)
}
