package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// provider makes tokens, publishes the key that it signs them with, and knows of each whose it is.
type provider struct {
	*httptest.Server
	t    testing.TB
	key  *ecdsa.PrivateKey
	down atomic.Bool
}

// The client that may ask about tokens.
const providerClient, providerSecret = "jackdaw", "a-provider-s-secret"

func startProvider(t testing.TB) *provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{t: t, key: key}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, secret, _ := r.BasicAuth()
	var answer any
	switch {
	case p.down.Load():
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	case r.URL.Path == "/keys":
		answer = map[string]any{"keys": []jose.JSONWebKey{{KeyID: "1", Key: p.key.Public(), Algorithm: "ES256", Use: "sig"}}}
	case r.URL.Path != "/introspect" || name != providerClient || secret != providerSecret:
		http.Error(w, "not for you", http.StatusUnauthorized)
		return
	default:
		answer = p.about(r.PostFormValue("token"))
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// about is what there is to be known of a token.
func (p *provider) about(token string) map[string]any {
	claims := map[string]any{}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return map[string]any{"active": false}
	}
	payload, err := signed.Verify(p.key.Public())
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return map[string]any{"active": false}
	}
	claims["active"] = true
	return claims
}

// token makes one for a user, that is valid for so long.
func (p *provider) token(user string, valid time.Duration) string {
	p.t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: p.key}, (&jose.SignerOptions{}).WithHeader("kid", "1"))
	if err != nil {
		p.t.Fatal(err)
	}
	payload, err := json.Marshal(map[string]any{"iss": p.URL, "aud": "mail", "email": user, "exp": time.Now().Add(valid).Unix()})
	if err != nil {
		p.t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		p.t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		p.t.Fatal(err)
	}
	return token
}

// bearer logs in by a token, and returns how the server ends that. Who is refused has heard why (RFC 7628 section 3.2.2).
func (d *dialog) bearer(user, token string) string {
	d.t.Helper()
	why := ""
	end := d.exchange("OAUTHBEARER", "n,a="+user+",\x01host=mail.a.example\x01auth=Bearer "+token+"\x01\x01", func(challenge string) string {
		why = challenge
		return "\x01"
	})
	if refused := strings.HasPrefix(end, denied[d.protocol]); refused != (why == `{"status":"invalid_token"}`) {
		d.t.Errorf("%s: the challenge is %q, the end %q", d.protocol, why, end)
	}
	return end
}

// TestTokens: beside a Dovecot that knows passwords, a provider's tokens let their users in, whether he is asked about each or has
// published his keys, and nobody else. While he is down nobody's token is wrong.
func TestTokens(t *testing.T) {
	t.Parallel()
	const alice, bob = "alice@a.example", "bob@a.example"
	dovecot := startDovecot(t, "store1", passwords, alice, bob)
	p := startProvider(t)
	store := dovecot.backend(dovecot.as("pop3"), dovecot.as("submission"),
		fmt.Sprintf("login = \"master\"\nlogin_user = %q\nlogin_password = %q", proxyUser, proxyPassword))
	auth := fmt.Sprintf("[auth]\nverify = \"dovecot\"\nsocket = %q\n[auth.tokens]\nissuer = %q\naudience = \"mail\"\n", askDovecot(t, dovecot).Socket, p.URL)
	asks := fmt.Sprintf("introspection = %q\nclient = %q\nclient_secret = %q\n", p.URL+"/introspect", providerClient, providerSecret)
	knows := fmt.Sprintf("keys = %q\n", p.URL+"/keys")
	jd := startJackdaw(t, store, auth+asks)
	jd.knows(dovecot)
	for _, way := range []string{asks, knows} {
		before := jd.count("reloaded")
		jd.reload(store, auth+way)
		jd.loggedTimes(t, before+1, "reloaded")
		for _, service := range []string{"imaps", "pop3", "submission", "sieve"} {
			tries := func(user, token string, want answers) {
				t.Helper()
				d := jd.meet(t, client{}.at(service, "mail.a.example"))
				d.wants(want, d.bearer(user, token))
			}
			tries("alice", p.token(alice, time.Hour), letIn)
			tries(bob, p.token(alice, time.Hour), denied)
			tries("nobody", p.token(alice, time.Hour), denied)
			tries(alice, p.token(alice, -time.Second), denied)
			tries(alice, startProvider(t).token(alice, time.Hour), denied)
			tries(alice, "opaque", denied)
		}
		for _, mechanism := range []string{"OAUTHBEARER", "XOAUTH2"} {
			folders := jd.curlBy(t, "imaps", "mail.a.example", "", "--user", alice+":", "--oauth2-bearer", p.token(alice, time.Hour),
				"--login-options", "AUTH="+mechanism)
			if !strings.Contains(folders, dovecot.folder()) {
				t.Errorf("%s: alice has %q", mechanism, folders)
			}
		}
		if folders := jd.folders(t, "mail.a.example", alice); !strings.Contains(folders, dovecot.folder()) {
			t.Errorf("by her password alice has %q", folders)
		}
	}
	p.down.Store(true)
	jd.reload(store, auth+asks)
	jd.loggedTimes(t, 3, "reloaded")
	d := jd.meet(t, client{}.at("imaps", "mail.a.example"))
	d.wants(comeAgain, d.bearer(alice, p.token(alice, time.Hour)))
	d.wants(letIn, d.plain(alice, password))
}
