package directories

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
)

// httpDirectory asks a server that was written for nginx's mail proxy, in the protocol of its auth_http:
// https://nginx.org/en/docs/mail/ngx_mail_auth_http_module.html#protocol. Question and answer stand in headers, and one
// question both places and verifies.
type httpDirectory struct {
	url       *url.URL
	headers   map[string]string // beside those of the protocol
	timeout   time.Duration
	transport *http.Transport
	open      context.Context // ends with Close
	close     context.CancelCauseFunc
}

// What a server gets and may take. The answers are small, and a server that is slow must not be given ever more to do.
const (
	httpConnections = 64
	httpIdle        = 30 * time.Second // less than servers and firewalls keep a connection that nobody uses
	httpHeader      = 16 << 10
	httpBody        = 16 << 10 // is ignored, and read so that the connection can be used again
)

// httpPause is the least time after which a server that says WAIT is asked again. A variable, so that tests need not wait.
var httpPause = time.Second

func newHTTP(c configs.Directory, _ *zap.Logger) (Directory, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	transport, err := httpTransport(c.TLSCA)
	if err != nil {
		return nil, err
	}
	d := &httpDirectory{url: u, headers: c.Headers, timeout: c.Timeout, transport: transport}
	d.open, d.close = context.WithCancelCause(context.Background())
	return d, nil
}

// httpTransport asks a server that hears secrets, and so by no proxy of the environment.
func httpTransport(tlsCA string) (*http.Transport, error) {
	secured, err := clientTLS(tlsCA)
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		DialContext:            (&net.Dialer{}).DialContext,
		TLSClientConfig:        secured,
		DisableCompression:     true,
		MaxConnsPerHost:        httpConnections,
		MaxIdleConnsPerHost:    httpConnections,
		IdleConnTimeout:        httpIdle,
		MaxResponseHeaderBytes: httpHeader,
	}, nil
}

// Close ends the questions that are under way.
func (d *httpDirectory) Close() {
	d.close(errClosed)
	d.transport.CloseIdleConnections()
}

// Lookup asks until the server says something else than WAIT.
func (d *httpDirectory) Lookup(ctx context.Context, q Query) (Answer, error) {
	if q.Verify && q.Secret == "" {
		return Answer{}, ErrDenied // nothing was shown that could be right
	}
	ctx, cancel := bounded(ctx, d.open, d.timeout)
	defer cancel()
	for {
		answer, wait, err := d.ask(ctx, q)
		if err == nil && wait > 0 {
			err = pause(ctx, wait)
		}
		switch {
		case err != nil:
			return answer, fmt.Errorf("asking %s: %w", d.url.Host, err)
		case wait == 0:
			return answer, nil
		}
	}
}

// pause waits as long as a server that says WAIT wants, if there is so much time.
func pause(ctx context.Context, wait time.Duration) error {
	if end, ok := ctx.Deadline(); ok && time.Until(end) < wait {
		return fmt.Errorf("the server wants to be asked again after %v, which is too late", wait)
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ask puts one question. The transport repeats it by itself where a connection that was idle turns out to be closed; it
// follows no redirect.
func (d *httpDirectory) ask(ctx context.Context, q Query) (Answer, time.Duration, error) {
	question := (&http.Request{Method: http.MethodGet, URL: d.url, Header: d.question(q)}).WithContext(ctx)
	response, err := d.transport.RoundTrip(question)
	if err != nil {
		return Answer{}, 0, because(ctx, err)
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, httpBody)
	if response.StatusCode != http.StatusOK {
		return Answer{}, 0, fmt.Errorf("the server answers with status %d", response.StatusCode)
	}
	return judge(response.Header, q)
}

// question makes the headers that nginx would write.
func (d *httpDirectory) question(q Query) http.Header {
	h := http.Header{"User-Agent": nil} // nginx sends none
	set := func(name, value string) { h[name] = []string{value} }
	ports := strings.NewReplacer("{listen_port}", fmt.Sprint(q.Address.Port()), "{client_port}", fmt.Sprint(q.Port))
	for name, value := range d.headers {
		set(name, ports.Replace(value))
	}
	set("Auth-Method", authMethod(q))
	set("Auth-User", escapeAuth(q.User))
	set("Auth-Pass", escapeAuth(q.Secret))
	set("Auth-Protocol", authProtocol(q.Service))
	set("Auth-Login-Attempt", strconv.Itoa(q.Attempt))
	set("Client-IP", "unix:")
	if q.Client.IsValid() {
		set("Client-IP", q.Client.String())
	}
	switch q.Service.Protocol() {
	case configs.LMTP:
		// As in nginx's "smtp_auth none". Whom the message is from is not known where users are placed.
		set("Auth-SMTP-Helo", q.Hello)
		set("Auth-SMTP-To", "RCPT TO:<"+q.User+">")
		fallthrough
	case configs.Submission:
		set("Client-Host", "[UNAVAILABLE]") // the name in DNS, which nginx does not look up without a resolver either
	}
	if q.TLS != 0 {
		set("Auth-SSL", "on")
		set("Auth-SSL-Protocol", sslProtocol(q.TLS))
		set("Auth-SSL-Cipher", sslCipher(q.Cipher))
		if q.Mechanism == "EXTERNAL" {
			set("Auth-SSL-Verify", "SUCCESS") // nobody gets so far with a certificate that is not
		}
	}
	return h
}

// authMethod is the client's mechanism in nginx's words.
func authMethod(q Query) string {
	switch {
	case q.Mechanism == "EXTERNAL":
		return "external"
	case q.Secret == "":
		return "none"
	case q.Mechanism == "PLAIN", q.Mechanism == "LOGIN":
		return "plain"
	}
	return strings.ToLower(q.Mechanism) // a token is not a password
}

// authProtocol is the protocol in nginx's words: submission is smtp there. It has none for ManageSieve and LMTP; these have
// the words under which Mailu's server knows them.
func authProtocol(s configs.Service) string {
	if s.Protocol() == configs.Submission {
		return "smtp"
	}
	return string(s.Protocol())
}

// escapeAuth writes a name or a password as nginx does (NGX_ESCAPE_MAIL_AUTH): control characters, the blank and the percent
// sign are escaped, and nothing else is; servers that know of UTF-8 expect it unescaped.
func escapeAuth(s string) string {
	if !strings.ContainsFunc(s, escapedRune) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if escapedRune(rune(s[i])) {
			fmt.Fprintf(&b, "%%%02X", s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// escapedRune holds for DEL, too, which nginx lets through and HTTP does not allow (RFC 9110 section 5.5).
func escapedRune(r rune) bool { return r <= ' ' || r == '%' || r == 0x7f }

func sslProtocol(version uint16) string {
	if version == tls.VersionTLS13 {
		return "TLSv1.3"
	}
	return "TLSv1.2"
}

// sslCipher is OpenSSL's name of a cipher suite. Those of TLS 1.3 have the same as everywhere.
func sslCipher(suite uint16) string {
	name, old := strings.CutPrefix(tls.CipherSuiteName(suite), "TLS_ECDHE_")
	if !old {
		return name
	}
	shorter := strings.NewReplacer("_WITH", "", "AES_", "AES", "_CBC", "", "POLY1305_SHA256", "POLY1305", "_", "-")
	return "ECDHE-" + shorter.Replace(name)
}

// authAnswers are the headers of an answer.
var authAnswers = []string{"Auth-Status", "Auth-Server", "Auth-Port", "Auth-User", "Auth-Pass", "Auth-Wait", "Auth-Error-Code"}

// judge reads an answer. A wait tells to ask again after it.
func judge(h http.Header, q Query) (answer Answer, wait time.Duration, err error) {
	said := make(map[string]string)
	for _, name := range authAnswers {
		if len(h.Values(name)) > 1 {
			return Answer{}, 0, fmt.Errorf("the answer has %s twice", name)
		}
		said[name] = h.Get(name)
	}
	if said["Auth-Wait"] != "" {
		seconds, err := strconv.ParseUint(said["Auth-Wait"], 10, 16)
		if err != nil {
			return Answer{}, 0, fmt.Errorf("Auth-Wait: %.40q is no number of seconds", said["Auth-Wait"])
		}
		wait = time.Duration(seconds) * time.Second
	}
	switch status := said["Auth-Status"]; {
	case status == "OK":
		answer, err = placement(said, q)
		return answer, 0, err
	case status == "WAIT":
		return Answer{}, max(wait, httpPause), nil
	case status == "":
		return Answer{}, 0, errors.New("the answer has no Auth-Status")
	case authMethod(q) == "none" || temporary(status, said["Auth-Error-Code"]):
		// Whoever shows nothing is refused for what he is not asked for, or because the server does not know the question.
		return Answer{Wait: wait}, 0, fmt.Errorf("the server refuses: %.200q", status)
	default:
		return Answer{Wait: wait}, 0, fmt.Errorf("%w: the server says %.200q", ErrDenied, status)
	}
}

// placement reads an answer that is OK.
func placement(said map[string]string, q Query) (Answer, error) {
	server, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(said["Auth-Server"], "["), "]"))
	if err != nil || server.Zone() != "" {
		return Answer{}, fmt.Errorf("Auth-Server: %.80q is no IP address", said["Auth-Server"])
	}
	port, err := strconv.ParseUint(said["Auth-Port"], 10, 16)
	if err != nil || port == 0 {
		return Answer{}, fmt.Errorf("Auth-Port: %.40q is no port", said["Auth-Port"])
	}
	for _, name := range []string{"Auth-User", "Auth-Pass"} {
		if err := checkText(said[name]); err != nil {
			return Answer{}, fmt.Errorf("%s %w", name, err)
		}
	}
	return Answer{
		Backend:  netip.AddrPortFrom(server.Unmap(), uint16(port)).String(),
		User:     said["Auth-User"],
		Password: said["Auth-Pass"],
		Verified: q.Secret != "", // without one there was nothing to verify
	}, nil
}

// temporary tells a refusal that will pass. nginx passes the code on as it is, so it is one of the client's protocol; where that
// has none, or the server sets none, Mailu's server and Nauthilus begin the text with the word.
func temporary(status, code string) bool {
	for _, sign := range []string{"UNAVAILABLE", "LIMIT", "INUSE", "[SYS/TEMP]", "[LOGIN-DELAY]", "[IN-USE]", "TRYLATER"} {
		if strings.Contains(strings.ToUpper(code), sign) {
			return true
		}
	}
	return strings.HasPrefix(code, "4") || strings.HasPrefix(strings.ToLower(status), "temporary")
}
