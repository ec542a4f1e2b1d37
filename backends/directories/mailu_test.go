package directories

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"

	"jackdaw/configs"
)

// mailu answers as Mailu's server does, of version 2026.07: core/admin/mailu/internal/nginx.py and views/auth.py there. Its nginx
// and its Dovecot ask it. What a request lacks is an exception, that is status 500.
type mailu struct {
	passwords map[string]string
	limited   map[string]bool // clients with too many failures
}

func (m mailu) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, name := range []string{"Client-Ip", "Auth-Port", "Auth-Protocol", "Auth-Method"} {
		if len(r.Header.Values(name)) == 0 {
			http.Error(w, "KeyError: "+name, http.StatusInternalServerError)
			return
		}
	}
	answer, known := m.answer(r.Header.Get)
	if !known {
		http.Error(w, "SHOULD NOT HAPPEN", http.StatusInternalServerError)
		return
	}
	for name, value := range answer {
		w.Header().Set(name, value)
	}
}

// mailuPorts are where the stores listen, at one address.
var mailuPorts = map[string]string{"imap": "143", "pop3": "110", "smtp": "10025", "lmtp": "2525", "sieve": "4190"}

// mailuCodes are the codes of a wrong password and of too many of them.
var mailuCodes = map[string][2]string{
	"imap":  {"AUTHENTICATIONFAILED", "LIMIT"},
	"smtp":  {"535 5.7.8", "451 4.3.2"},
	"pop3":  {"-ERR Authentication failed", "-ERR [LOGIN-DELAY] Retry later"},
	"sieve": {"AuthFailed", "AuthFailed"},
}

func (m mailu) answer(header func(string) string) (answer map[string]string, known bool) {
	protocol, method := header("Auth-Protocol"), header("Auth-Method")
	ok := map[string]string{"Auth-Status": "OK", "Auth-Server": "10.0.0.11", "Auth-Port": mailuPorts[protocol]}
	switch {
	case header("Auth-Port") == "25" && method != "none":
		return map[string]string{"Auth-Status": "AUTH not supported", "Auth-Error-Code": "502 5.5.1"}, true
	case m.limited[header("Client-Ip")]:
		status := "Temporary authentication failure (rate-limit)"
		return map[string]string{"Auth-Status": status, "Auth-Error-Code": mailuCodes[protocol][1]}, true
	case method == "none" && protocol == "lmtp":
		return ok, true
	case method != "plain" && method != "login", header("Client-Port") == "":
		return nil, false
	}
	user, _ := url.PathUnescape(header("Auth-User"))
	password, _ := url.PathUnescape(header("Auth-Pass"))
	mine, exists := m.passwords[user]
	about := map[string]string{"Auth-User": user, "Auth-User-Exists": map[bool]string{false: "False", true: "True"}[exists]}
	if !exists || mine != password {
		status := "Authentication credentials invalid"
		ok = map[string]string{"Auth-Status": status, "Auth-Error-Code": mailuCodes[protocol][0], "Auth-Wait": "0"}
	}
	maps.Copy(ok, about)
	return ok, true
}

func TestMailu(t *testing.T) {
	server := httptest.NewServer(mailu{
		passwords: map[string]string{"anna@a.example": `50% of "it" + more`},
		limited:   map[string]bool{"203.0.113.9": true},
	})
	defer server.Close()
	d := openHTTP(t, server.URL+"/internal/auth/email", func(c *configs.Directory) {
		c.Headers = map[string]string{"Auth-Port": "{listen_port}", "Client-Port": "{client_port}"}
	})
	anna := asked.with(func(q *Query) { q.Secret = `50% of "it" + more` })
	at := func(port string) string {
		return outcome(Answer{Backend: "10.0.0.11:" + port, User: "anna@a.example", Verified: true}, nil)
	}
	for _, tt := range []struct {
		what   string
		change func(*Query)
		want   string
	}{
		{"imap", func(*Query) {}, at("143")},
		{"pop3", func(q *Query) { q.Service = configs.POP3S }, at("110")},
		{"submission", func(q *Query) { q.Service = configs.Submissions }, at("10025")},
		{"sieve", func(q *Query) { q.Service = configs.Sieve }, at("4190")},
		{"a recipient", func(q *Query) { q.Service, q.Mechanism, q.Secret = configs.LMTP, "", "" }, outcome(Answer{Backend: "10.0.0.11:2525"}, nil)},
		{"a wrong password", func(q *Query) { q.Secret = "50" }, "denied, wait 0s"},
		{"an unknown user", func(q *Query) { q.User = "eve@a.example" }, "denied, wait 0s"},
		{"a login for mail that comes in", func(q *Query) { q.Address = netip.MustParseAddrPort("192.0.2.1:25") }, "denied, wait 0s"},
		{"a client certificate, which it does not know", func(q *Query) { q.Mechanism, q.Secret = "EXTERNAL", "" }, "temporary"},
		{"too many failures, imap", func(q *Query) { q.Client = netip.MustParseAddr("203.0.113.9") }, "temporary"},
		{"too many failures, sieve", func(q *Query) { q.Service, q.Client = configs.Sieve, netip.MustParseAddr("203.0.113.9") }, "temporary"},
	} {
		if got := outcome(d.Lookup(t.Context(), anna.with(tt.change))); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
}
