package proxy

import (
	"encoding/base64"
	"strings"
	"testing"
)

// scramAttempt begins an exchange as the user.
func scramAttempt(t *testing.T, user string) *Attempt {
	t.Helper()
	a, err := begin("SCRAM-SHA-256", []byte("n,,n="+user+",r=client"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// parts takes a challenge apart: the store's nonce, the salt, the count.
func parts(t *testing.T, challenge string) (nonce, salt, iterations string) {
	t.Helper()
	fields := strings.Split(challenge, ",")
	if len(fields) != 3 || !strings.HasPrefix(fields[0], "r=client") || !strings.HasPrefix(fields[1], "s=") || !strings.HasPrefix(fields[2], "i=") {
		t.Fatalf("malformed challenge %q", challenge)
	}
	octets, err := base64.StdEncoding.DecodeString(fields[1][2:])
	if err != nil {
		t.Fatalf("challenge %q: %v", challenge, err)
	}
	return fields[0][len("r=client"):], string(octets), fields[2][2:]
}

// A challenge that nobody can answer looks like those of the stores, and a name has one salt if they have it so.
func TestScramImitation(t *testing.T) {
	dovecot := strings.Repeat("~|#x", 16)
	for _, test := range []struct {
		name      string
		learned   []string // for alice
		nonce     int
		salt      int
		count     string
		printable bool
		varies    bool
	}{
		{"nothing known", nil, 24, 16, "4096", false, false},
		{"short salt", []string{"r=clientAAAAAAAA,s=AAAA,i=10000"}, 8, 3, "10000", false, false},
		{"any printable nonce", []string{"r=client" + dovecot + ",s=" + base64.StdEncoding.EncodeToString(make([]byte, 16)) + ",i=2048"}, 64, 16, "2048", true, false},
		{"stored keys", []string{"r=clientAAAA,s=AAAA,i=1", "r=clientAAAA,s=AAAA,i=1"}, 4, 3, "1", false, false},
		{"salt each time", []string{"r=clientAAAA,s=AAAA,i=1", "r=clientAAAA,s=BBBB,i=1"}, 4, 3, "1", false, true},
		{"last message", []string{"v=dmVyaWZpZXI="}, 24, 16, "4096", false, false},
		{"error of a token", []string{`{"status":"401","schemes":"bearer","scope":"mail"}`}, 24, 16, "4096", false, false},
		{"another nonce", []string{"r=other,s=AAAA,i=1"}, 24, 16, "4096", false, false},
		{"no base64", []string{"r=clientAAAA,s=A,i=1"}, 24, 16, "4096", false, false},
		{"endless salt", []string{"r=clientAAAA,s=" + strings.Repeat("AAAA", 1000) + ",i=1"}, 24, 16, "4096", false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var shape scramShape
			for _, challenge := range test.learned {
				shape.learn(scramAttempt(t, "alice"), []byte(challenge))
			}
			var salts, nonces []string
			for _, user := range []string{"nobody", "nobody", "noone"} {
				nonce, salt, count := parts(t, string(shape.imitate(scramAttempt(t, user))))
				if len(nonce) != test.nonce || len(salt) != test.salt || count != test.count {
					t.Errorf("nonce %q, salt of %d octets, %s times", nonce, len(salt), count)
				}
				if strings.Trim(nonce, printableAlphabet) != "" || !test.printable && strings.Trim(nonce, base64Alphabet) != "" {
					t.Errorf("nonce %q has other characters than a store's", nonce)
				}
				salts, nonces = append(salts, salt), append(nonces, nonce)
			}
			if nonces[0] == nonces[1] {
				t.Error("two challenges have the same nonce")
			}
			if (salts[0] != salts[1]) != test.varies || salts[0] == salts[2] {
				t.Errorf("salts %q of one user and of another", salts)
			}
		})
	}
}
