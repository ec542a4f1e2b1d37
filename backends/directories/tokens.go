package directories

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"go.uber.org/zap"

	"jackdaw/configs"
)

// tokens verifies bearer tokens (RFC 6750), by asking the provider about each (RFC 7662) or by the signature that he has put on it
// (RFC 7519). Whom a token names is in Answer.User, as the provider writes it.
type tokens struct {
	config    configs.Tokens
	transport *http.Transport
	keys      *providerKeys   // nil where the provider is asked about each token
	open      context.Context // ends with Close
	close     context.CancelCauseFunc
}

// OpenTokens makes who decides about tokens; nil where the configuration has nobody. A provider who cannot be reached is no error.
func OpenTokens(c configs.Tokens, log *zap.Logger) (Directory, error) {
	if !c.Given() {
		return nil, nil
	}
	transport, err := httpTransport(c.TLSCA)
	if err != nil {
		return nil, err
	}
	t := &tokens{config: c, transport: transport}
	t.open, t.close = context.WithCancelCause(context.Background())
	if c.Keys != "" {
		t.keys = followKeys(t.open, t.fetchKeys, log.With(zap.String("keys", c.Keys)))
	}
	if c.Cache > 0 {
		return newVerifyCache(t, c.Cache), nil
	}
	return t, nil
}

// Close ends what is under way.
func (t *tokens) Close() {
	t.close(errClosed)
	if t.keys != nil {
		t.keys.wait()
	}
	t.transport.CloseIdleConnections()
}

// Lookup verifies a token. It is wrong, and no failure, if the provider does not know it, and if it is not for us or not now.
func (t *tokens) Lookup(ctx context.Context, q Query) (Answer, error) {
	if !q.Verify || q.Secret == "" {
		return Answer{}, errors.New("without a token nobody can be verified")
	}
	ctx, cancel := bounded(ctx, t.open, t.config.Timeout)
	defer cancel()
	read := t.introspect
	if t.keys != nil {
		read = t.keys.verify
	}
	c, err := read(ctx, q.Secret)
	if err != nil {
		return Answer{}, err
	}
	return c.answer(t.config, time.Now())
}

// Learn asks the provider for his keys, or whether he answers us at all.
func (t *tokens) Learn(ctx context.Context) error {
	ctx, cancel := bounded(ctx, t.open, t.config.Timeout)
	defer cancel()
	if t.keys != nil {
		return t.keys.refresh(ctx)
	}
	if _, err := t.introspect(ctx, "an invented token"); !errors.Is(err, ErrDenied) {
		return cmp.Or(err, errors.New("the provider takes any token"))
	}
	return nil
}

// tokenBody bounds what a provider may answer.
const tokenBody = 1 << 20

// ask puts a question to the provider, who must answer with status 200 and JSON.
func (t *tokens) ask(request *http.Request) ([]byte, error) {
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "jackdaw")
	response, err := t.transport.RoundTrip(request) // which follows no redirect
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", request.URL.Host, because(request.Context(), err))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, tokenBody+1))
	switch {
	case err != nil:
		err = because(request.Context(), err)
	case response.StatusCode != http.StatusOK:
		err = fmt.Errorf("the answer has status %d", response.StatusCode)
	case len(body) > tokenBody:
		err = fmt.Errorf("the answer is longer than %d octets", tokenBody)
	default:
		return body, nil
	}
	return nil, fmt.Errorf("asking %s: %w", request.URL.Host, err)
}

func (t *tokens) fetchKeys(ctx context.Context) ([]byte, error) {
	ctx, cancel := withTimeout(ctx, t.config.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, t.config.Keys, nil)
	if err != nil {
		return nil, err
	}
	return t.ask(request)
}

// introspect asks what is known of a token (RFC 7662 section 2).
func (t *tokens) introspect(ctx context.Context, token string) (claims, error) {
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.config.Introspection, strings.NewReader(form.Encode()))
	if err != nil {
		return claims{}, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if t.config.Client != "" { // RFC 6749 section 2.3.1 has both written as in a form
		request.SetBasicAuth(url.QueryEscape(t.config.Client), url.QueryEscape(t.config.ClientSecret))
	}
	body, err := t.ask(request)
	if err != nil {
		return claims{}, err
	}
	var c claims
	var state struct {
		Active *bool `json:"active"`
	}
	if errors.Join(json.Unmarshal(body, &state), json.Unmarshal(body, &c.Claims), json.Unmarshal(body, &c.all)) != nil || state.Active == nil {
		return claims{}, fmt.Errorf("asking %s: the answer does not say whether the token is active", request.URL.Host)
	}
	if !*state.Active {
		return claims{}, fmt.Errorf("%w: the provider does not know the token, or no more", ErrDenied)
	}
	return c, nil
}

// claims are what a provider says of a token.
type claims struct {
	jwt.Claims
	all map[string]any
}

// tokenLeeway is by how much clocks may differ where a token is not yet valid.
const tokenLeeway = time.Minute

// answer reads for whom, by whom and for how long a token was made.
func (c claims) answer(config configs.Tokens, now time.Time) (Answer, error) {
	expected := jwt.Expected{Issuer: config.Issuer, Time: now}
	if config.Audience != "" {
		expected.AnyAudience = jwt.Audience{config.Audience}
	}
	err := c.ValidateWithLeeway(expected, tokenLeeway)
	until := c.Expiry.Time()
	switch {
	case err != nil:
	case c.Expiry == nil && config.Keys != "":
		err = errors.New("the token has no end")
	case c.Expiry != nil && !now.Before(until):
		err = jwt.ErrExpired
	}
	if err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	user, err := c.user(config.Claim)
	if err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	return Answer{User: user, Verified: true, Until: until}, nil
}

// user is whom a token names. An address that nobody has verified may be anybody's.
func (c claims) user(claim string) (string, error) {
	for _, name := range []string{cmp.Or(claim, "email"), "username", "sub"} {
		user, _ := c.all[name].(string)
		verified, said := c.all["email_verified"]
		switch {
		case user != "" && name == "email" && said && verified != true && verified != "true":
			return "", errors.New("the provider has not verified the token's address")
		case user != "" && validName(user):
			return user, nil
		case claim != "":
			return "", fmt.Errorf("the token has no %s", claim)
		}
	}
	return "", errors.New("the token names nobody")
}
