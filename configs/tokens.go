package configs

import (
	"net"
	"net/url"
	"strings"
	"time"
)

// Tokens is the [auth.tokens] table: who has made the bearer tokens that clients log in with by OAUTHBEARER (RFC 7628) and XOAUTH2.
// Whatever verifies passwords, a token is verified here, so there must be a verifier that is not the store. Without the table tokens
// are offered where Dovecot's auth service offers them.
type Tokens struct {
	// Introspection is where a provider is shown each token (RFC 7662); Client and ClientSecret are what jackdaw logs in with there,
	// if the provider asks for that.
	Introspection string `toml:"introspection"`
	Client        string `toml:"client"`
	ClientSecret  string `toml:"client_secret,secret"`
	// Keys is where a provider publishes the keys (RFC 7517) that he signs tokens with (RFC 7519), in place of Introspection.
	Keys string `toml:"keys"`
	// Issuer and Audience are what a token must say of its provider and of whom it is meant for. Keys need both: the provider
	// signs tokens for others with them, too.
	Issuer   string `toml:"issuer"`
	Audience string `toml:"audience"`
	// Claim is what of a token names the user, as the client has to name him; default: email, username or sub, the first that
	// is there.
	Claim string `toml:"claim"`
	// TLSCA is a PEM file with the authorities that the provider's certificate is checked with; default: the system's.
	TLSCA string `toml:"tls_ca"`
	// Timeout bounds one question; default 5s.
	Timeout time.Duration `toml:"timeout"`
	// Cache is how long a right token is known by a keyed hash and not shown again, but never longer than it is valid; default 0:
	// never.
	Cache time.Duration `toml:"cache"`
}

// Given reports whether tokens are verified here.
func (t *Tokens) Given() bool { return t.Introspection != "" || t.Keys != "" }

func (t *Tokens) check(d *decoder, n *node) {
	d.verifierTimes(n, &t.Timeout, 5*time.Second, t.Cache)
	d.canonical(n.at("tls_ca"), &t.TLSCA, d.relative)
	for key, value := range map[string]string{"introspection": t.Introspection, "keys": t.Keys} {
		switch {
		case n.get(key) == nil || isProvider(value):
		case strings.Contains(value, "@"):
			d.errorf(n.at(key), "%s: %s", n.at(key).path, errNamedURL)
		default:
			d.errorf(n.at(key), `%s: %q is no URL such as "https://id.example.net/%s", and only on this machine it may be http`, n.at(key).path, value, key)
		}
	}
	switch secret := n.secret("client_secret") != nil; {
	case len(n.keys) > 0 && n.get("introspection") == nil && n.get("keys") == nil:
		d.errorf(n, "%s needs introspection or keys: a URL of the provider", n.path)
	case t.Introspection != "" && t.Keys != "":
		d.errorf(n.at("keys"), "introspection and keys exclude each other")
	case t.Keys != "" && (t.Issuer == "" || t.Audience == ""):
		d.errorf(n.at("keys"), "keys needs issuer and audience: the provider signs tokens for others, too")
	case t.Introspection != "" && (t.Client != "") != secret:
		d.errorf(n.at("introspection"), "client and client_secret belong together")
	case t.Keys != "" && (t.Client != "" || secret):
		d.errorf(n.at("keys"), "client and client_secret are of no use with keys, which are public")
	}
}

// isProvider reports whether a token or a key can travel by a URL.
func isProvider(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.User != nil || u.Hostname() == "" {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && Address{"tcp", net.JoinHostPort(u.Hostname(), u.Port())}.local()
}
