package directories

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/zap"

	"jackdaw/configs"
)

// provider is somebody who makes tokens. What it answers is read for each question.
type provider struct {
	*httptest.Server
	mu     sync.Mutex
	answer func(r *http.Request) (status int, body string)
	asked  int
}

func newProvider(t testing.TB) *provider {
	t.Helper()
	p := &provider{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked++
		answer := p.answer
		p.mu.Unlock()
		status, body := answer(r)
		if status/100 == 3 {
			w.Header().Set("Location", p.URL+"/elsewhere")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(p.Close)
	return p
}

// says has the provider answer so from now on.
func (p *provider) says(status int, body string) {
	p.hears(func(*http.Request) (int, string) { return status, body })
}

func (p *provider) hears(answer func(*http.Request) (int, string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

func (p *provider) questions() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// publishes has it answer with keys.
func (p *provider) publishes(t testing.TB, keys ...jose.JSONWebKey) {
	t.Helper()
	set, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	p.says(200, string(set))
}

func openTokens(t testing.TB, c configs.Tokens) Directory {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = patience
	}
	d, err := OpenTokens(c, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// shows asks about a token of anna's.
func shows(t testing.TB, d Directory, token string) (Answer, error) {
	t.Helper()
	q := login(token)
	q.Mechanism = "OAUTHBEARER"
	return d.Lookup(t.Context(), q)
}

// signed makes a token.
func signed(t testing.TB, alg jose.SignatureAlgorithm, key any, kid string, claims map[string]any) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithType("at+jwt")
	if kid != "" {
		options = options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signature.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// good are claims that nothing is wrong with, changed by others; nil takes one away.
func good(changes ...any) map[string]any {
	claims := map[string]any{"iss": "https://id.example", "aud": []string{"web", "mail"}, "email": "Anna@a.example", "sub": "4711",
		"exp": time.Now().Add(time.Hour).Unix(), "nbf": time.Now().Unix(), "iat": time.Now().Unix()}
	for i := 0; i < len(changes); i += 2 {
		claims[changes[i].(string)] = changes[i+1]
	}
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return claims
}

func public(kid string, key crypto.Signer) jose.JSONWebKey {
	return jose.JSONWebKey{KeyID: kid, Key: key.Public()}
}

type signers struct {
	rsa, weak, other *rsa.PrivateKey
	ec               *ecdsa.PrivateKey
	ed               ed25519.PrivateKey
}

var testSigners = sync.OnceValue(func() (s signers) {
	s.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	s.weak, _ = rsa.GenerateKey(rand.Reader, 1024)
	s.other, _ = rsa.GenerateKey(rand.Reader, 2048)
	s.ec, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, s.ed, _ = ed25519.GenerateKey(rand.Reader)
	return s
})

// A token is right by the signature of a key that the provider has published, of the kind that the key is for; and only for us, now,
// and for somebody.
func TestTokenKeys(t *testing.T) {
	s, p := testSigners(), newProvider(t)
	encrypts, narrow := public("encrypts", s.rsa), public("narrow", s.rsa)
	encrypts.Use, narrow.Algorithm = "enc", "PS256"
	p.publishes(t, public("rsa", s.rsa), public("ec", s.ec), public("ed", s.ed), public("weak", s.weak), encrypts, narrow,
		jose.JSONWebKey{KeyID: "shared", Key: []byte("a secret that both know, and long enough for HS256")})
	c := configs.Tokens{Keys: p.URL, Issuer: "https://id.example", Audience: "mail"}
	d := openTokens(t, c)
	modulus := s.rsa.PublicKey.N.Bytes()
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." +
		strings.Split(signed(t, jose.RS256, s.rsa, "rsa", good()), ".")[1] + "."
	past, soon := time.Now().Add(-time.Second).Unix(), time.Now().Add(5*time.Minute).Unix()
	for what, tt := range map[string]struct {
		token string
		right bool
	}{
		"RS256":                     {signed(t, jose.RS256, s.rsa, "rsa", good()), true},
		"PS512":                     {signed(t, jose.PS512, s.rsa, "rsa", good()), true},
		"ES256":                     {signed(t, jose.ES256, s.ec, "ec", good()), true},
		"EdDSA":                     {signed(t, jose.EdDSA, s.ed, "ed", good()), true},
		"without a kid":             {signed(t, jose.ES256, s.ec, "", good()), true},
		"for us alone":              {signed(t, jose.ES256, s.ec, "ec", good("aud", "mail")), true},
		"the key's own algorithm":   {signed(t, jose.PS256, s.rsa, "narrow", good()), true},
		"not the key's algorithm":   {signed(t, jose.RS256, s.rsa, "narrow", good()), false},
		"another's key":             {signed(t, jose.RS256, s.other, "rsa", good()), false},
		"another's, without a kid":  {signed(t, jose.RS256, s.other, "", good()), false},
		"another kind of key":       {signed(t, jose.RS256, s.rsa, "ec", good()), false},
		"a key for something else":  {signed(t, jose.RS256, s.rsa, "encrypts", good()), false},
		"a key that is too short":   {signed(t, jose.RS256, s.weak, "weak", good()), false},
		"HMAC with the public key":  {signed(t, jose.HS256, modulus, "rsa", good()), false},
		"HMAC with a published key": {signed(t, jose.HS256, []byte("a secret that both know, and long enough for HS256"), "shared", good()), false},
		"none":                      {none, false},
		"changed":                   {strings.Replace(signed(t, jose.RS256, s.rsa, "rsa", good()), ".", ".e30", 1), false},
		"no token at all":           {"opaque", false},
		"expired":                   {signed(t, jose.RS256, s.rsa, "rsa", good("exp", past)), false},
		"without an end":            {signed(t, jose.RS256, s.rsa, "rsa", good("exp", nil)), false},
		"not yet":                   {signed(t, jose.RS256, s.rsa, "rsa", good("nbf", soon)), false},
		"from the future":           {signed(t, jose.RS256, s.rsa, "rsa", good("iat", soon)), false},
		"by somebody else":          {signed(t, jose.RS256, s.rsa, "rsa", good("iss", "https://id.example/")), false},
		"by nobody":                 {signed(t, jose.RS256, s.rsa, "rsa", good("iss", nil)), false},
		"for somebody else":         {signed(t, jose.RS256, s.rsa, "rsa", good("aud", "web")), false},
		"for nobody":                {signed(t, jose.RS256, s.rsa, "rsa", good("aud", nil)), false},
		"an address of anybody's":   {signed(t, jose.RS256, s.rsa, "rsa", good("email_verified", false)), false},
		"an address of anna's":      {signed(t, jose.RS256, s.rsa, "rsa", good("email_verified", true)), true},
		"of nobody":                 {signed(t, jose.RS256, s.rsa, "rsa", good("email", nil, "sub", nil)), false},
		"of a name that is none":    {signed(t, jose.RS256, s.rsa, "rsa", good("email", "a\nb", "sub", nil)), false},
		"of several":                {signed(t, jose.RS256, s.rsa, "rsa", good("email", []string{"anna@a.example"}, "sub", nil)), false},
	} {
		answer, err := shows(t, d, tt.token)
		switch {
		case tt.right && (err != nil || answer.User != "Anna@a.example" || !answer.Verified || time.Until(answer.Until) < time.Minute):
			t.Errorf("%s: %+v, %v", what, answer, err)
		case !tt.right && (!errors.Is(err, ErrDenied) || answer != (Answer{})):
			t.Errorf("%s: %+v, %v", what, answer, err)
		case err != nil && strings.Contains(err.Error(), tt.token):
			t.Errorf("%s: the token stands in %q", what, err)
		}
	}
	if n := p.questions(); n != 1 {
		t.Errorf("the keys were asked for %d times", n)
	}
}

// Which claim names the user is for the operator to say, and then no other one does.
func TestTokenClaims(t *testing.T) {
	for _, tt := range []struct {
		claim string
		said  map[string]any
		want  string
	}{
		{"", map[string]any{"email": "a@x", "username": "b", "sub": "c"}, "a@x"},
		{"", map[string]any{"username": "b", "sub": "c"}, "b"},
		{"", map[string]any{"sub": "c", "name": "d"}, "c"},
		{"preferred_username", map[string]any{"preferred_username": "d", "email": "a@x", "email_verified": false}, "d"},
		{"preferred_username", map[string]any{"email": "a@x"}, ""},
		{"email", map[string]any{"email": "a@x", "email_verified": "false"}, ""},
	} {
		if got, err := (claims{all: tt.said}).user(tt.claim); got != tt.want || (err == nil) != (got != "") {
			t.Errorf("%q of %v: %q, %v", tt.claim, tt.said, got, err)
		}
	}
}

// A key that nobody knows may be new: the provider is asked, but not by every stranger. While he is down nobody's token is wrong for
// want of his key, and the keys of before hold.
func TestTokenKeysChange(t *testing.T) {
	defer func(pause, retry time.Duration) { keysPause, keysRetry = pause, retry }(keysPause, keysRetry)
	keysRetry = time.Hour
	s, p := testSigners(), newProvider(t)
	p.says(503, "")
	d := openTokens(t, configs.Tokens{Keys: p.URL, Issuer: "https://id.example", Audience: "mail"}).(*tokens)
	defer d.Close()
	old, fresh := signed(t, jose.ES256, s.ec, "old", good()), signed(t, jose.RS256, s.rsa, "fresh", good())
	unknown := func(token, text string) {
		t.Helper()
		if answer, err := shows(t, d, token); err == nil || errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v, %v; want an error with %q", answer, err, text)
		}
	}
	unknown(old, "status 503")
	p.publishes(t, public("old", s.ec))
	unknown(old, "status 503") // it was just asked
	later := func() {
		d.keys.mu.Lock()
		defer d.keys.mu.Unlock()
		d.keys.asked = time.Time{}
	}
	later()
	if _, err := shows(t, d, old); err != nil {
		t.Error(err)
	}
	before := p.questions()
	for range 10 {
		if _, err := shows(t, d, fresh); !errors.Is(err, ErrDenied) {
			t.Error(err)
		}
	}
	if n := p.questions() - before; n != 0 {
		t.Errorf("ten tokens with an unknown key are %d questions", n)
	}
	for body, text := range map[string]string{"{": "no set of keys", `{"keys":[]}`: "no key for signatures", `{"keys":[{"kty":"oct","k":"AAAA"}]}`: "no key",
		strings.Repeat("x", tokenBody+1): "longer than"} {
		p.says(200, body)
		later()
		unknown(fresh, text)
		if _, err := shows(t, d, old); err != nil {
			t.Error("the key of before does not hold:", err)
		}
	}
	p.publishes(t, public("fresh", s.rsa))
	later()
	if _, err := shows(t, d, fresh); err != nil {
		t.Error(err)
	}
	if _, err := shows(t, d, old); !errors.Is(err, ErrDenied) {
		t.Error("with a key that is taken back:", err)
	}
}

// A provider may be asked about each token.
func TestIntrospection(t *testing.T) {
	p := newProvider(t)
	c := configs.Tokens{Introspection: p.URL + "/introspect", Client: "jack:daw", ClientSecret: "own secret", Issuer: "https://id.example"}
	d := openTokens(t, c)
	p.hears(func(r *http.Request) (int, string) {
		name, password, _ := r.BasicAuth()
		if r.Method != "POST" || r.URL.Path != "/introspect" || name != "jack%3Adaw" || password != "own+secret" || r.PostFormValue("token") != "to ken+" {
			t.Errorf("asked %s %s by %q, %q: %v", r.Method, r.URL, name, password, r.PostForm)
		}
		return 200, fmt.Sprintf(`{"active":true,"username":"anna","iss":"https://id.example","exp":%d}`, time.Now().Add(time.Hour).Unix())
	})
	if answer, err := shows(t, d, "to ken+"); err != nil || answer.User != "anna" || !answer.Verified || time.Until(answer.Until) < time.Minute {
		t.Errorf("%+v, %v", answer, err)
	}
	for body, right := range map[string]bool{
		`{"active":true,"sub":"anna","iss":"https://id.example"}`:            true,
		`{"active":true,"sub":"anna","iss":"https://id.example","exp":null}`: true,
		`{"active":false}`: false,
		`{"active":false,"sub":"anna","iss":"https://id.example"}`:                  false,
		`{"active":true,"sub":"anna","iss":"https://id.example","exp":1700000000}`:  false,
		`{"active":true,"sub":"anna","iss":"https://id.example","nbf":99999999999}`: false,
		`{"active":true,"sub":"anna","iss":"https://other.example"}`:                false,
		`{"active":true,"sub":"anna"}`:                                              false,
		`{"active":true,"iss":"https://id.example"}`:                                false,
	} {
		p.says(200, body)
		if answer, err := shows(t, d, "token"); answer.Verified != right || errors.Is(err, ErrDenied) == right {
			t.Errorf("%s: %+v, %v", body, answer, err)
		}
	}
	for body, status := range map[string]int{
		`{"active":true,"sub":"anna","iss":"https://id.example"} `: 201, `{"error":"invalid_client"}`: 401, "": 302, "<html>": 200, "null": 200, "[]": 200,
		`{"sub":"anna"}`: 200, `{"active":"true"}`: 200, `{"active":true,"exp":"never"}`: 200, `{"active":tru`: 200, `{"active":false} and more`: 200,
	} {
		p.says(status, body)
		if answer, err := shows(t, d, "token"); err == nil || errors.Is(err, ErrDenied) || answer != (Answer{}) {
			t.Errorf("%d %s: %+v, %v", status, body, answer, err)
		}
	}
	p.Close()
	if answer, err := shows(t, d, "token"); err == nil || errors.Is(err, ErrDenied) || answer != (Answer{}) {
		t.Errorf("%+v, %v", answer, err)
	}
}

// A provider that hangs is a failure, and one that is to be closed lets nobody wait.
func TestProviderHangs(t *testing.T) {
	p := newProvider(t)
	over := make(chan struct{})
	p.hears(func(r *http.Request) (int, string) {
		select {
		case <-r.Context().Done():
		case <-over:
		}
		return 200, "{}"
	})
	defer close(over)
	hasty := openTokens(t, configs.Tokens{Introspection: p.URL, Timeout: 50 * time.Millisecond})
	if _, err := shows(t, hasty, "token"); err == nil || !strings.Contains(err.Error(), "no answer within") {
		t.Error(err)
	}
	for _, c := range []configs.Tokens{{Introspection: p.URL}, {Keys: p.URL}} {
		d := openTokens(t, c)
		time.AfterFunc(50*time.Millisecond, d.Close)
		token := signed(t, jose.ES256, testSigners().ec, "", good())
		if _, err := shows(t, d, token); err == nil || errors.Is(err, ErrDenied) {
			t.Error(err)
		}
	}
}

// A right token is remembered while it is valid, and no longer.
func TestTokenCache(t *testing.T) {
	p := newProvider(t)
	now := time.Now()
	p.says(200, fmt.Sprintf(`{"active":true,"sub":"anna","exp":%d}`, now.Add(time.Minute).Unix()))
	d := openTokens(t, configs.Tokens{Introspection: p.URL, Cache: time.Hour})
	d.(*verifyCache).now = func() time.Time { return now }
	ask := func(token string, want int) {
		t.Helper()
		if _, err := shows(t, d, token); err != nil || p.questions() != want {
			t.Errorf("%v, after %d questions; want %d", err, p.questions(), want)
		}
	}
	ask("token", 1)
	ask("token", 1)
	ask("another", 2)
	now = now.Add(time.Minute)
	ask("token", 3)
}

// What check --online asks is whether the provider would answer.
func TestProviderIsThere(t *testing.T) {
	s, p := testSigners(), newProvider(t)
	for _, tt := range []struct {
		config configs.Tokens
		body   string
		wants  string
	}{
		{configs.Tokens{Introspection: p.URL, Cache: time.Minute}, `{"active":false}`, ""},
		{configs.Tokens{Introspection: p.URL}, `{"active":true}`, "takes any token"},
		{configs.Tokens{Introspection: p.URL}, `{`, "whether the token is active"},
		{configs.Tokens{Keys: p.URL}, `{}`, "no key"},
	} {
		p.says(200, tt.body)
		err := Learn(context.Background(), openTokens(t, tt.config))
		if (err == nil) != (tt.wants == "") || err != nil && !strings.Contains(err.Error(), tt.wants) {
			t.Errorf("%+v: %v; want %q", tt.config, err, tt.wants)
		}
	}
	p.publishes(t, public("ec", s.ec))
	if err := Learn(t.Context(), openTokens(t, configs.Tokens{Keys: p.URL})); err != nil {
		t.Error(err)
	}
}
