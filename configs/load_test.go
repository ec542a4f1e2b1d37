package configs

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestErrors reads the files in testdata. Each has every error that it must lead to on the line where it is reported,
// behind "#!".
func TestErrors(t *testing.T) {
	for _, file := range files(t, "testdata/*.toml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got Errors
			if _, err := Parse(file, data); !errors.As(err, &got) {
				t.Fatalf("Parse: %v, which are no Errors", err)
			}
			if diff := cmp.Diff(wantedErrors(file, string(data)).Error(), got.Error()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func wantedErrors(file, data string) Errors {
	var wanted Errors
	for i, line := range strings.Split(data, "\n") {
		for _, message := range strings.Split(line, "#!")[1:] {
			wanted = append(wanted, Error{file, i + 1, strings.TrimSpace(message)})
		}
	}
	return wanted
}

// TestExamples reads the examples where a password lies beside them.
func TestExamples(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "cyrus.password"), "secret\n")
	for _, file := range files(t, "*.toml") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		example := filepath.Join(dir, file)
		write(t, example, string(data))
		if _, err := Load(example); err != nil {
			t.Error(err)
		}
	}
}

func write(t *testing.T, file, contents string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(contents), 0o600); err != nil {
		t.Fatal(err)
	}
}

func files(t testing.TB, pattern string) []string {
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("no %s: %v", pattern, err)
	}
	return found
}

func TestLoadNoFile(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.toml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that the file does not exist", err)
	}
}

// TestDefaults reads a file that says only what it must.
func TestDefaults(t *testing.T) {
	got := parse(t, `
		[listen]
		imaps = "127.0.0.1:0"
		sieve = "unix:/run/sieve"
		lmtp = "unix:/run/lmtp"
		[tls]
		certificates = "certs"
		[[backend]]
		name = "cyrus"
		imap = "localhost:143"
		sieve = "unix:/run/cyrus/sieve"
		lmtp = "unix:/run/cyrus/lmtp"`)
	if got.Hostname == "" {
		t.Error("no host name")
	}
	got.Hostname = ""
	want := &Config{
		State: "/var/lib/jackdaw",
		Listen: Listen{Listeners: []Listener{
			{Service: IMAPS, Address: Address{"tcp", "127.0.0.1:0"}, Name: "imaps", TLS: TLSImplicit, Line: 3},
			{Service: Sieve, Address: Address{"unix", "/run/sieve"}, Name: "sieve", TLS: TLSStartTLS, Mode: 0o660, Line: 4},
			{Service: LMTP, Address: Address{"unix", "/run/lmtp"}, Name: "lmtp", TLS: TLSNone, Mode: 0o660, Line: 5},
		}},
		TLS: TLS{Certificates: []string{"/etc/jackdaw/certs"}, ClientUser: ClientUserEmail,
			Terms: Terms{MinVersion: tls.VersionTLS12, KeyType: KeyTypeECDSA}},
		ACME:  ACME{Directory: LetsEncrypt, Cache: "/var/lib/jackdaw/acme"},
		Users: Users{Separators: "@%", Lowercase: true},
		Backends: []Backend{{Name: "cyrus", Line: 8, Access: map[Service]Access{
			IMAP:  plain(Address{"tcp", "localhost:143"}),
			Sieve: plain(Address{"unix", "/run/cyrus/sieve"}),
			LMTP:  plain(Address{"unix", "/run/cyrus/lmtp"}),
		}}},
		Auth: Auth{Verify: VerifyBackend, Realm: RealmApart, Timeout: 30 * time.Second, Tokens: Tokens{Timeout: 5 * time.Second}},
		Limits: Limits{
			LoginTimeout: time.Minute,
			IdleTimeout:  idleTimeout(35*time.Minute, nil),
			Attempts:     3,
			FailureDelay: 2 * time.Second,

			SessionsPerClient: 1000,
			SessionsPerUser:   100,
			FailuresPerClient: Rate{20, time.Minute},
			Exempt:            Networks{Prefixes: localPrefixes(), Unix: true},

			StopTimeout:    15 * time.Second,
			UpgradeTimeout: 24 * time.Hour,
		},
		Log:   Log{Level: "info"},
		Admin: Admin{Socket: "/run/jackdaw/admin.sock"},
	}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestNoCertificates: where no client is shown a certificate, none is asked for.
func TestNoCertificates(t *testing.T) {
	got := parse(t, `
		[listen]
		imap = "127.0.0.1:143"
		lmtp = ["unix:/run/lmtp", { address = ":24", from = "192.0.2.0/24" }]
		plaintext_from = "local"
		[[backend]]
		name = "cyrus"
		imap = "unix:/run/cyrus/imap"
		lmtp = "unix:/run/cyrus/lmtp"`)
	for _, l := range got.Listen.Listeners {
		if l.PlaintextFrom.Empty() != (l.Service == LMTP) {
			t.Errorf("%s: plaintext from %v", l.Service, l.PlaintextFrom)
		}
	}
}

// TestEverything reads a file that says all it can.
func TestEverything(t *testing.T) {
	got := parse(t, `
hostname = "Mail.Example.net"
state = "state"
[listen]
imap = [":143", { address = "127.0.0.1:144", name = "webmail", plaintext_from = ["local"], from = [] }]
sieve = { address = "[::1]:4190", tls = "implicit", default = "b.example", realm = "BÜCHER.example" }
submission = { address = ":587", proxy_from = [] }
lmtp = { address = ":24", tls = "starttls", from = "local" }
from = ["192.0.2.0/24", "2001:db8::1"]
proxy_from = "2001:db8::1"
plaintext_from = []
[[listen.imaps]]
address = "unix:/run/jackdaw/imaps"
mode = "0600"
group = "mail"
[tls]
certificates = ["/etc/certs", "more/certs"]
default = ""
min_version = "1.3"
client_ca = "clients.pem"
client_user = "cn"
key_type = "rsa"
ticket_keys = "tickets.keys"
[users]
realms = { "*.A.example" = "a.example", "mail.{domain}" = "{domain}" }
default_realm = "example.net"
unqualified = ["Cyrus"]
separators = "@%!"
lowercase = true
impersonate_from = "local"
[[route]]
user = ["Cyrus", "*@Bücher.example"]
client = "local"
listener = "web*"
refuse = "administration is local"
[[route]]
domain = ["*.A.example"]
sni = "imap.a.example"
service = ["imap", "imaps"]
to = "s1.stores.example.net"
[[backend]]
name = "*.Stores.example.net"
examples = ["s1.stores.example.net"]
imap = "{name}:143"
tls = "starttls"
tls_ca = "ca.pem"
user = "{local}%{domain}"
health = "1m"
[backend.sieve]
address = ["10.0.0.1:4190", "unix:/run/sieve"]
tls = "none"
user = "{user}"
accepts_any_password = true
health = "off"
[[backend]]
name = "store2"
max_sessions = 5_000
max_logins = 50
imap = { address = "10.0.0.2:143", login = "master", external_login = "same", client_info = "id" }
submission = { address = "10.0.0.2:587", external_login = "xclient", client_info = "xclient" }
sieve = "10.0.0.2:4190"
lmtp = { address = "[2001:db8::2]:24", login_user = "lmtp", login_password = "other secret" }
tls = "none"
client_info = "proxy"
external_login = "authzid"
login_user = "proxy"
login_password = "secret"
source = ["192.0.2.9", "2001:DB8::9"]
[limits]
login_timeout = "10s"
idle_timeout = { imap = "1h" }
attempts = 5
failure_delay = "1s"
sessions = { imap = 20_000, lmtp = 100 }
sessions_per_client = 50
sessions_per_user = 0
failures_per_client = "100/h"
exempt = "192.0.2.0/24"
deny = "198.51.100.0/24"
deny_file = "denied"
stop_delay = "5s"
stop_timeout = "1m"
upgrade_timeout = "48h"
[log]
level = "debug"
format = "json"
[acme]
names = ["Mail.Example.net", "mail.{domain}"]
directory = "https://acme.example/directory"
ca = "acme.pem"
email = "postmaster@example.net"
eab_kid = "kid-1"
eab_key = "c2VjcmV0"
cache = "acme"
http = "127.0.0.1:8402"
tls_alpn = ":443"
[admin]
socket = "run/admin"
[[tls.policy]]
sni = ["Old.A.example", "BÜCHER.example"]
services = ["imaps", "submission"]
min_version = "1.2"
client_ca = ""
key_type = "ecdsa"
[[tls.policy]]
sni = "*.A.example"
client_ca = "a.pem"
`)
	from := Networks{Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::1/128")}}
	local := Networks{Prefixes: localPrefixes(), Unix: true}
	proxies := Networks{Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8::1/128")}}
	peers := Peers{From: from, ProxyFrom: proxies}
	often := Interval(10 * time.Second)
	source := []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")}
	want := &Config{
		Hostname: "mail.example.net",
		State:    "/etc/jackdaw/state",
		Listen: Listen{
			Listeners: []Listener{
				{Service: IMAP, Address: Address{"tcp", ":143"}, Name: "imap", TLS: TLSStartTLS, Peers: peers, Line: 5},
				{Service: IMAP, Address: Address{"tcp", "127.0.0.1:144"}, Name: "webmail", TLS: TLSStartTLS,
					Peers: Peers{PlaintextFrom: local, ProxyFrom: proxies}, Line: 5},
				{Service: IMAPS, Address: Address{"unix", "/run/jackdaw/imaps"}, Name: "imaps", TLS: TLSImplicit, Mode: 0o600,
					Group: "mail", Peers: peers, Line: 12},
				{Service: Submission, Address: Address{"tcp", ":587"}, Name: "submission", TLS: TLSStartTLS,
					Peers: Peers{From: from}, Line: 7},
				{Service: Sieve, Address: Address{"tcp", "[::1]:4190"}, Name: "sieve", TLS: TLSImplicit, Default: new("b.example"),
					Realm: "xn--bcher-kva.example", Peers: peers, Line: 6},
				{Service: LMTP, Address: Address{"tcp", ":24"}, Name: "lmtp", TLS: TLSStartTLS,
					Peers: Peers{From: local, ProxyFrom: proxies}, Line: 8},
			},
			Peers: peers,
		},
		TLS: TLS{Certificates: []string{"/etc/certs", "/etc/jackdaw/more/certs"}, Default: new(""),
			Terms:      Terms{MinVersion: tls.VersionTLS13, ClientCA: "/etc/jackdaw/clients.pem", KeyType: KeyTypeRSA},
			ClientUser: ClientUserCN,
			TicketKeys: "/etc/jackdaw/tickets.keys",
			Policies: []TLSPolicy{
				{SNI: []string{"old.a.example", "xn--bcher-kva.example"}, Services: []Service{IMAPS, Submission},
					Terms: Terms{MinVersion: tls.VersionTLS12, KeyType: KeyTypeECDSA}},
				{SNI: []string{"*.a.example"}, Terms: Terms{MinVersion: tls.VersionTLS13, ClientCA: "/etc/jackdaw/a.pem", KeyType: KeyTypeRSA}},
			}},
		ACME: ACME{Names: []string{"mail.example.net", "mail.{domain}"}, Directory: "https://acme.example/directory",
			CA: "/etc/jackdaw/acme.pem", Email: "postmaster@example.net", EABKid: "kid-1", EABKey: "c2VjcmV0",
			Cache: "/etc/jackdaw/acme", HTTP: Address{"tcp", "127.0.0.1:8402"}, TLSALPN: Address{"tcp", ":443"}},
		Users: Users{
			Realms:          map[string]string{"*.a.example": "a.example", "mail.{domain}": "{domain}"},
			DefaultRealm:    "example.net",
			Unqualified:     []string{"cyrus"},
			Separators:      "@%!",
			Lowercase:       true,
			ImpersonateFrom: local,
		},
		Routes: []Route{
			{User: []string{"cyrus", "*@xn--bcher-kva.example"}, Client: local, Listener: []string{"web*"},
				Refuse: "administration is local", Line: 31},
			{Domain: []string{"*.a.example"}, SNI: []string{"imap.a.example"}, Service: []Service{IMAP, IMAPS},
				To: "s1.stores.example.net", Line: 36},
		},
		Backends: []Backend{{
			Name:     "*.stores.example.net",
			Examples: []string{"s1.stores.example.net"},
			Access: map[Service]Access{
				IMAP: {Addresses: []Address{{"tcp", "{name}:143"}}, TLS: TLSStartTLS, TLSCA: "/etc/jackdaw/ca.pem",
					User: "{local}%{domain}", ClientInfo: ClientInfoAuto, Login: LoginSame, ExternalLogin: LoginSame,
					Health: Interval(time.Minute)},
				// The authorities that the others need are none of its business.
				Sieve: {Addresses: []Address{{"tcp", "10.0.0.1:4190"}, {"unix", "/run/sieve"}}, TLS: TLSNone, User: "{user}",
					ClientInfo: ClientInfoAuto, Login: LoginSame, ExternalLogin: LoginSame, AcceptsAnyPassword: true},
			},
			Line: 41,
		}, {
			Name:        "store2",
			MaxSessions: 5000,
			MaxLogins:   50,
			Access: map[Service]Access{
				IMAP: {Addresses: []Address{{"tcp", "10.0.0.2:143"}}, TLS: TLSNone, User: "{user}", ClientInfo: ClientInfoID,
					Login: LoginMaster, ExternalLogin: LoginSame, LoginUser: "proxy", LoginPassword: "secret", Source: source, Health: often},
				// Nor is the proxy's own password.
				Submission: {Addresses: []Address{{"tcp", "10.0.0.2:587"}}, TLS: TLSNone, User: "{user}",
					ClientInfo: ClientInfoXCLIENT, Login: LoginSame, ExternalLogin: LoginXCLIENT, Source: source, Health: often},
				Sieve: {Addresses: []Address{{"tcp", "10.0.0.2:4190"}}, TLS: TLSNone, User: "{user}", ClientInfo: ClientInfoProxy,
					Login: LoginSame, ExternalLogin: LoginAuthzid, LoginUser: "proxy", LoginPassword: "secret", Source: source, Health: often},
				LMTP: {Addresses: []Address{{"tcp", "[2001:db8::2]:24"}}, TLS: TLSNone, User: "{user}", ClientInfo: ClientInfoProxy,
					Login: LoginSame, ExternalLogin: LoginSame, LoginUser: "lmtp", LoginPassword: "other secret", Source: source, Health: often},
			},
			Line: 55,
		}},
		Auth: Auth{Verify: VerifyBackend, Realm: RealmApart, Timeout: 30 * time.Second, Tokens: Tokens{Timeout: 5 * time.Second}},
		Limits: Limits{
			LoginTimeout: 10 * time.Second,
			IdleTimeout:  idleTimeout(35*time.Minute, PerService[time.Duration]{IMAP: time.Hour}),
			Attempts:     5,
			FailureDelay: time.Second,

			Sessions:          Sessions{By: map[Service]int{IMAP: 20_000, LMTP: 100}},
			SessionsPerClient: 50,
			FailuresPerClient: Rate{100, time.Hour},
			Exempt:            Networks{Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
			Deny:              Networks{Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}},
			DenyFile:          "/etc/jackdaw/denied",

			StopDelay:      5 * time.Second,
			StopTimeout:    time.Minute,
			UpgradeTimeout: 48 * time.Hour,
		},
		Log:   Log{Level: "debug", Format: "json"},
		Admin: Admin{Socket: "/etc/jackdaw/run/admin"},
	}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// plain is the way to a store of which nothing but the address is said.
func plain(addresses ...Address) Access {
	return Access{Addresses: addresses, TLS: TLSNone, User: "{user}", ClientInfo: ClientInfoAuto, Login: LoginSame,
		ExternalLogin: LoginSame, Health: Interval(10 * time.Second)}
}

// idleTimeout is one value for all services but some.
func idleTimeout(all time.Duration, but PerService[time.Duration]) PerService[time.Duration] {
	timeout := make(PerService[time.Duration])
	for _, s := range Services() {
		timeout[s] = all
	}
	maps.Copy(timeout, but)
	return timeout
}

var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

func parse(t *testing.T, data string) *Config {
	t.Helper()
	config, err := Parse("/etc/jackdaw/jackdaw.toml", []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func TestBackend(t *testing.T) {
	config := Config{Backends: []Backend{{Name: "*.stores.example"}, {Name: "store"}, {Name: "s2.stores.example"}}}
	for name, want := range map[string]string{
		"store":               "store",
		"s1.stores.example":   "*.stores.example",
		"s2.stores.example":   "s2.stores.example",
		"a.s1.stores.example": "",
		".stores.example":     "",
		"stores.example":      "",
		"":                    "",
	} {
		backend, ok := config.Backend(name)
		if ok != (want != "") || ok && backend.Name != want {
			t.Errorf("%q: got %+v, want %q", name, backend, want)
		}
	}
}

// FuzzParse asserts that whatever the file says, Parse answers, and that an operator finds the line it speaks of.
func FuzzParse(f *testing.F) {
	for _, file := range append(files(f, "testdata/*.toml"), files(f, "*.toml")...) {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		config, err := Parse("fuzz.toml", data)
		if err == nil {
			if len(config.Listen.Listeners) == 0 || len(config.Backends) == 0 {
				t.Error("no error, and nothing to serve")
			}
			return
		}
		var errs Errors
		if !errors.As(err, &errs) {
			t.Fatalf("%v is no Errors", err)
		}
		last := bytes.Count(data, []byte("\n")) + 1
		for _, e := range errs {
			if e.Line < 1 || e.Line > last {
				t.Errorf("a file of %d lines: %s", last, e)
			}
		}
	})
}
