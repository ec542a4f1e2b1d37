package integration

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLDAPLogin: users of two stores log in by jackdaw, which asks a slapd for their place and their passwords.
func TestLDAPLogin(t *testing.T) {
	t.Parallel()
	s := startOpenLDAP(t)
	store1 := startDovecot(t, "store1", passwords, "anna@a.example").serving("imap", "pop3")
	store2 := startDovecot(t, "store2", passwords, "bob@b.example").serving("imap", "pop3")
	jd := startJackdaw(t, "[auth]\nverify = \"directory\"", s.directory(`cache = "0s"`), store1.backend(), store2.backend(),
		"[[route]]\nlookup = \"people\"")
	for user, store := range map[string]*store{"anna@a.example": store1, "bob@b.example": store2} {
		if folders := jd.login("mail.a.example", user).ask(`LIST "" *`); !strings.Contains(folders, store.folder()) {
			t.Errorf("%s has %q", user, folders)
		}
	}
	status := func(user, secret string) string {
		_, status := jd.imap("mail.a.example").command("LOGIN " + user + " " + secret)
		return status
	}
	for user, secret := range map[string]string{"anna@a.example": "wrong", "eve@a.example": password, "*": password} {
		if got := status(user, secret); !strings.HasPrefix(got, denied["imap"]) {
			t.Errorf("%s is told %q", user, got)
		}
	}
	pop3 := dialTLS(t, jd.at(portPOP3S), jd.tls("mail.a.example"))
	pop3.expect("+OK")
	pop3.send("AUTH PLAIN " + plain("anna@a.example", password))
	if answer := pop3.expect("-ERR "); strings.HasPrefix(answer, "[AUTH]") {
		t.Errorf("who may not use POP3 is told %q after the right password", answer)
	}
	jd.logged(t, "popAllowed")

	s.kill()
	for _, secret := range []string{password, "wrong"} {
		if got := status("anna@a.example", secret); !strings.HasPrefix(got, unavailable) {
			t.Errorf("without slapd anna is told %q", got)
		}
	}
	s.restart()
	jd.login("mail.a.example", "anna@a.example")
	if strings.Contains(jd.Log(), proxyPassword) {
		t.Error("jackdaw's own password is in the log")
	}
}

// authServer speaks nginx's auth_http: it sends all users to one store.
type authServer struct {
	mu    sync.Mutex
	to    *store // nil: it refuses everybody
	asked []http.Header
}

func (a *authServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, r.Header)
	if a.to == nil || r.Header.Get("Auth-Method") == "plain" && r.Header.Get("Auth-Pass") != password {
		w.Header().Set("Auth-Status", "Invalid login or password")
		return
	}
	host, port, _ := net.SplitHostPort(a.to.at(ports()[r.Header.Get("Auth-Protocol")]))
	w.Header().Set("Auth-Status", "OK")
	w.Header().Set("Auth-Server", host)
	w.Header().Set("Auth-Port", port)
}

func (a *authServer) start(t testing.TB) (url string) {
	t.Helper()
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	return server.URL + "/auth"
}

func (a *authServer) refuse() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.to = nil
}

// question is the last that was asked, which must have been since this was called before.
func (a *authServer) question(t testing.TB) (last http.Header) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.asked) == 0 {
		t.Fatal("nobody has asked")
	}
	last, a.asked = a.asked[len(a.asked)-1], nil
	return last
}

func authDirectory(url string) string {
	return fmt.Sprintf("[directory.nginx]\nkind = \"http\"\nurl = %q\nheaders = { X-Auth-Key = \"key\" }\ncache = \"0s\"\n"+
		"[[route]]\nlookup = \"nginx\"\n", url)
}

// TestHTTPLogin: a server for nginx verifies, and places by the address of a store, for logins and for deliveries.
func TestHTTPLogin(t *testing.T) {
	t.Parallel()
	store1 := startDovecot(t, "store1", passwords, "anna@a.example").serving("imap", "sieve", "lmtp")
	store2 := startDovecot(t, "store2", passwords, "anna@a.example").serving("imap", "sieve", "lmtp")
	server := &authServer{to: store2}
	jd := startJackdaw(t, "[auth]\nverify = \"directory\"", authDirectory(server.start(t)), store1.backend(), store2.backend())
	if folders := jd.login("mail.a.example", "anna@a.example").ask(`LIST "" *`); !strings.Contains(folders, store2.folder()) {
		t.Errorf("anna has %q", folders)
	}
	if _, status := jd.imap("mail.a.example").command("LOGIN anna@a.example wrong"); !strings.HasPrefix(status, denied["imap"]) {
		t.Errorf("a wrong password is told %q", status)
	}
	lmtp := dialFrom(t, "", "unix", jd.socket)
	lmtp.expect("220 ")
	lmtp.smtp("LHLO client.example")
	verdicts(t, lmtp.deliver("Over jackdaw", "", "anna@a.example"), "250 ")
	if got := server.question(t).Get("Auth-Method"); got != "none" {
		t.Errorf("method %q for a recipient", got)
	}
	server.refuse()
	verdicts(t, lmtp.deliver("Over jackdaw", "", "bob@a.example"), "451 ")
}

const nginxConfig = `
load_module $tree/usr/lib/nginx/modules/ngx_mail_module.so;
daemon off;
master_process off;
pid $dir/pid;
error_log stderr info;
events { }
mail {
	auth_http $url;
	auth_http_header X-Auth-Key key;
	ssl_certificate $dir/cert.pem;
	ssl_certificate_key $dir/key.pem;
	ssl_protocols TLSv1.2 TLSv1.3;
	server_name mail.a.example;
	server { listen $host:$imaps ssl; protocol imap; imap_auth plain; }
	server { listen $host:$pop3s ssl; protocol pop3; pop3_auth plain; }
	server { listen $host:$submissions ssl; protocol smtp; smtp_auth plain; smtp_capabilities SIZE; }
}
`

// TestHTTPAsNginx: what a real nginx asks for a login, jackdaw asks.
func TestHTTPAsNginx(t *testing.T) {
	t.Parallel()
	server := new(authServer)
	url := server.start(t)
	store := &store{name: "nowhere", host: newHost(), user: "{user}"}
	jd := startJackdaw(t, authDirectory(url), store.serving("imap", "pop3", "submission").backend(`tls = "none"`))
	nginx := startNginx(t, jd, url)
	for _, tt := range []struct {
		user, secret string
		version      uint16
	}{
		{"anna@a.example", password, tls.VersionTLS12},
		{"ä'b+={}@a.example", ` p%0d%0aAuth-User: root "ü" \ + ß `, tls.VersionTLS13},
	} {
		for _, service := range []string{"imaps", "pop3s", "submissions"} {
			var asked [2]http.Header
			for i, host := range []string{nginx, jd.host} {
				config := jd.tls("mail.a.example")
				config.MaxVersion = tt.version
				tryPlain(dialTLS(t, net.JoinHostPort(host, ports()[service]), config), service, tt.user, tt.secret)
				asked[i] = server.question(t)
				asked[i].Del("Connection") // is of HTTP itself: nginx speaks version 1.0
			}
			if diff := cmp.Diff(asked[0], asked[1]); diff != "" {
				t.Errorf("%s, %q: -nginx +jackdaw:\n%s", service, tt.user, diff)
			}
		}
	}
}

// startNginx runs an nginx on jackdaw's ports of an address of its own, with the certificate for mail.a.example.
func startNginx(t testing.TB, jd *jackdaw, url string) (host string) {
	t.Helper()
	tree, dir, host := filepath.Join(needServers(t), "nginx"), serverDir(t), newHost()
	values := ports()
	values["tree"], values["dir"], values["host"], values["url"] = tree, dir, host, url
	write(t, filepath.Join(dir, "nginx.conf"), expand(nginxConfig, values))
	leaf := jd.certify("mail.a.example")
	write(t, filepath.Join(dir, "cert.pem"), string(leaf.ChainPEM))
	write(t, filepath.Join(dir, "key.pem"), string(leaf.KeyPEM))
	cmd := exec.Command(filepath.Join(tree, "usr/sbin/nginx"), "-p", dir, "-e", "stderr", "-c", filepath.Join(dir, "nginx.conf"))
	p := startProcess(t, filepath.Join(dir, "log"), asServant(t, cmd))
	p.answers(t, "tcp", net.JoinHostPort(host, portIMAPS))
	return host
}

// tryPlain tries to log in, which fails.
func tryPlain(d *dialog, service, user, secret string) {
	d.t.Helper()
	d.read()
	switch service {
	case "imaps":
		d.send("a AUTHENTICATE PLAIN")
		d.expect("+")
		d.send(plain(user, secret))
		d.expect("a NO")
	case "pop3s":
		d.send("AUTH PLAIN")
		d.expect("+")
		d.send(plain(user, secret))
		d.expect("-ERR")
	case "submissions":
		d.smtp("EHLO client.example")
		d.send("AUTH PLAIN " + plain(user, secret))
		d.expect("535")
	}
}
