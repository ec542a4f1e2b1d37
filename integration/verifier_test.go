package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends/directories"
	"jackdaw/configs"
)

// verifying opens a verifier.
func verifying(t testing.TB, c configs.Auth) directories.Directory {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = patience
	}
	v, err := directories.OpenVerifier(c, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// question asks for a user's password, as a client that has logged in by IMAP.
func question(user, secret string) directories.Query {
	local, domain := user, ""
	if i := strings.LastIndexByte(user, '@'); i >= 0 {
		local, domain = user[:i], user[i+1:]
	}
	return directories.Query{
		User: user, Local: local, Domain: domain, Service: configs.IMAPS, Mechanism: "PLAIN", Secret: secret, Verify: true,
		Client: netip.MustParseAddr("203.0.113.5"), Port: 4321, Address: netip.MustParseAddrPort("192.0.2.1:993"),
		SNI: "mail.a.example", Session: "a-session", TLS: 0x304,
	}
}

// The verdicts on a password.
const (
	isRight = "right"
	isWrong = "wrong"
	isOpen  = "open" // nobody knows
)

// verdict is what a verifier says.
func verdict(t testing.TB, v directories.Directory, q directories.Query) string {
	t.Helper()
	answer, err := v.Lookup(t.Context(), q)
	switch {
	case err == nil && answer.Verified:
		return isRight
	case answer.Verified || err == nil:
		t.Errorf("%q: %+v, %v", q.User, answer, err)
	case errors.Is(err, directories.ErrDenied):
		return isWrong
	case errors.Is(err, directories.ErrNotFound):
		t.Errorf("%q: %v", q.User, err)
	}
	return isOpen
}

// knowsPasswords asks a verifier for alice@a.example's password, and for what nobody has.
func knowsPasswords(t testing.TB, v directories.Directory) {
	t.Helper()
	const alice = "alice@a.example"
	for _, tt := range []struct{ user, secret, want string }{
		{alice, password, isRight},
		{alice, "wrong", isWrong},
		{alice, "", isWrong},
		{alice, password + " ", isWrong},
		{alice, password + "\x00", isWrong},
		{alice, password + "\x00" + password, isWrong},
		{alice, password + "\r\nx OK", isWrong},
		{alice, strings.ToUpper(password), isWrong},
		{alice, "\"" + password + "\"", isWrong},
		{alice, strings.Repeat("x", 256), isWrong},
		{alice, strings.Repeat("x", 257), isWrong},
		{alice, strings.Repeat("x", 40000), isWrong},
		{alice, "pässwörd€", isWrong},
		{"nobody@a.example", password, isWrong},
		{"alice@b.example", password, isWrong},
		{"alice", password, isWrong},
		{"alice@a.example@a.example", password, isWrong},
		{`alice"@a.example`, password, isWrong},
		{`alice\@a.example`, password, isWrong},
		{"alice%00@a.example", password, isWrong},
		{"%u@a.example", password, isWrong},
		{"' OR '1'='1@a.example", password, isWrong},
		{"*@a.example", password, isWrong},
		{"alice @a.example", password, isWrong},
		{"alice\t@a.example", password, isWrong},
		{"alice\n@a.example", password, isWrong},
		{"alice\r\nx LOGIN alice secret\r\n@a.example", password, isWrong},
		{"alice\x00@a.example", password, isWrong},
		{"alice\x01t@a.example", password, isWrong},
		{strings.Repeat("a", 256) + "@a.example", password, isWrong},
		{strings.Repeat("a", 5000) + "@a.example", password, isWrong},
		{alice, password, isRight},
	} {
		if got := verdict(t, v, question(tt.user, tt.secret)); got != tt.want {
			t.Errorf("%.50q with %.50q is %s, want %s", tt.user, tt.secret, got, tt.want)
		}
	}
}

// failingVerifier asks while the server is well, stopped, dead and back: nobody who knows the password is ever told that it is
// wrong, and nobody who does not gets in.
func failingVerifier(t testing.TB, c configs.Auth, server *process, restart func()) {
	t.Helper()
	const alice = "alice@a.example"
	v := verifying(t, c)
	c.Timeout = 300 * time.Millisecond
	hasty := verifying(t, c)
	wants := func(v directories.Directory, secret, want string) {
		t.Helper()
		if got := verdict(t, v, question(alice, secret)); got != want {
			t.Errorf("the password %q is %s, want %s", secret, got, want)
		}
	}
	wants(v, password, isRight)

	resume := server.hang(t)
	wants(hasty, password, isOpen)
	wants(hasty, "wrong", isOpen)
	late := make(chan string)
	go func() { late <- verdict(t, v, question(alice, password)) }()
	time.Sleep(300 * time.Millisecond)
	resume()
	if got := <-late; got != isRight {
		t.Errorf("after a while the password is %s", got)
	}
	wants(v, password, isRight)
	wants(v, "wrong", isWrong)

	var all sync.WaitGroup
	over := make(chan struct{})
	for _, secret := range []string{password, "wrong"} {
		for range 4 {
			all.Go(func() {
				for {
					got := verdict(t, hasty, question(alice, secret))
					if secret == password && got == isWrong || secret != password && got == isRight {
						t.Errorf("the password %q is %s", secret, got)
					}
					select {
					case <-over:
						return
					case <-time.After(10 * time.Millisecond):
					}
				}
			})
		}
	}
	time.Sleep(200 * time.Millisecond)
	server.kill()
	wants(v, password, isOpen)
	restart()
	wants(v, password, isRight)
	wants(v, "wrong", isWrong)
	close(over)
	all.Wait()
}

// TestSaslauthdVerifies: a real saslauthd, which asks a Dovecot, knows passwords, whether it gets the realm apart or not.
func TestSaslauthdVerifies(t *testing.T) {
	t.Parallel()
	s := startDovecot(t, "store1", passwords, "alice@a.example")
	dir := serverDir(t)
	p := startSaslauthd(t, s, dir)
	c := configs.Auth{Verify: configs.VerifySaslauthd, Socket: filepath.Join(dir, "mux"), Realm: configs.RealmApart}
	knowsPasswords(t, verifying(t, c))
	c.Realm = configs.RealmJoined
	knowsPasswords(t, verifying(t, c))
	failingVerifier(t, c, p, func() { p = startSaslauthd(t, s, dir) })
	// What stands behind it may fail, too: then it says no, and nobody can tell why.
	s.fail(t)
	if got := verdict(t, verifying(t, c), question("alice@a.example", password)); got != isWrong {
		t.Errorf("with no store behind saslauthd the password is %s", got)
	}
}

// TestSaslauthdQueue: more may ask at a time than saslauthd's queue holds, and all get an answer.
func TestSaslauthdQueue(t *testing.T) {
	t.Parallel()
	s := startDovecot(t, "store1", passwords, "alice@a.example")
	dir := serverDir(t)
	startSaslauthd(t, s, dir)
	v := verifying(t, configs.Auth{Verify: configs.VerifySaslauthd, Socket: filepath.Join(dir, "mux")})
	asksMany(t, v, 100)
}

// asksMany asks for right and wrong passwords at once.
func asksMany(t testing.TB, v directories.Directory, many int) {
	t.Helper()
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			secret, want := password, isRight
			if i%3 == 0 {
				secret, want = fmt.Sprintf("wrong%d", i), isWrong
			}
			if got := verdict(t, v, question("alice@a.example", secret)); got != want {
				t.Errorf("the password %q is %s, want %s", secret, got, want)
			}
		})
	}
	all.Wait()
}

// TestSaslauthdPAM: PAM is asked by the name of the service, and knows nobody here.
func TestSaslauthdPAM(t *testing.T) {
	t.Parallel()
	needServers(t)
	dir := serverDir(t)
	p := startProcess(t, filepath.Join(dir, "log"), asServant(t, exec.Command("saslauthd", "-d", "-n", "2", "-a", "pam", "-m", dir)))
	p.answers(t, "unix", filepath.Join(dir, "mux"))
	v := verifying(t, configs.Auth{Verify: configs.VerifySaslauthd, Socket: filepath.Join(dir, "mux"), Realm: configs.RealmApart})
	for service, name := range map[configs.Service]string{
		configs.IMAPS: "imap", configs.POP3: "pop", configs.Submission: "smtp", configs.Sieve: "sieve",
	} {
		q := question("jackdaw-nobody@a.example", "wrong")
		q.Service = service
		if got := verdict(t, v, q); got != isWrong {
			t.Errorf("the password is %s", got)
		}
		p.logged(t, "[user=jackdaw-nobody]", "[service="+name+"]", "[realm=a.example]", "[mech=pam]")
	}
}

// askDovecot is for a verifier that asks a store, whose socket for that is there later than others.
func askDovecot(t testing.TB, s *store) configs.Auth {
	t.Helper()
	s.answers(t, "unix", s.dir+"/auth")
	return configs.Auth{Verify: configs.VerifyDovecot, Socket: s.dir + "/auth"}
}

// TestDovecotVerifies: a real Dovecot knows passwords, and is asked many at once.
func TestDovecotVerifies(t *testing.T) {
	t.Parallel()
	s := startDovecot(t, "store1", passwords, "alice@a.example")
	c := askDovecot(t, s)
	v := verifying(t, c)
	knowsPasswords(t, v)
	asksMany(t, v, 100)
	failingVerifier(t, c, s.process, func() {
		s.restart()
		askDovecot(t, s)
	})
}

// TestDovecotReloads: at a reload Dovecot need not end its old process by force because jackdaw will not leave it.
func TestDovecotReloads(t *testing.T) {
	t.Parallel()
	s := startDovecot(t, "store1", passwords, "alice@a.example")
	v := verifying(t, askDovecot(t, s))
	if got := verdict(t, v, question("alice@a.example", password)); got != isRight {
		t.Fatalf("the password is %s", got)
	}
	file := filepath.Join(s.dir, "dovecot.conf")
	config, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(s.dir, "people"), "alice@a.example:{PLAIN}another::::::\n")
	write(t, file, strings.ReplaceAll(string(config), s.dir+"/users", s.dir+"/people"))
	s.signal(syscall.SIGHUP)
	eventually(t, "alice has another password", func() bool {
		return verdict(t, v, question("alice@a.example", "another")) == isRight
	})
	if n := s.count("auth", "SIGTERM") + s.count("auth: ", "Killed"); n != 0 {
		t.Error("the old process was killed")
	}
}

// TestDovecotSaysMore: what a passdb says beside its yes or no is heard, too.
func TestDovecotSaysMore(t *testing.T) {
	t.Parallel()
	s := dovecot{extra: "auth_verbose = yes\n"}.start(t, "store1", "alice@a.example")
	line := "%s@a.example:{PLAIN}" + password + "::::::%s\n"
	write(t, filepath.Join(s.dir, "users"), fmt.Sprintf(line, "alice", "")+
		fmt.Sprintf(line, "moved", "proxy=y host=10.0.0.9 port=1143 destuser=robert pass=other")+
		fmt.Sprintf(line, "referred", "nologin=y host=10.0.0.8")+
		fmt.Sprintf(line, "locked", "nologin=y reason=Closed")+
		fmt.Sprintf(line, "renamed", "user=other@a.example")+
		fmt.Sprintf(line, "elsewhere", "allow_nets=198.51.100.0/24")+
		fmt.Sprintf(line, "here", "allow_nets=203.0.113.0/24"))
	v := verifying(t, askDovecot(t, s))
	for _, tt := range []struct {
		user string
		want directories.Answer
	}{
		{"alice", directories.Answer{Verified: true}},
		{"here", directories.Answer{Verified: true}},
		{"moved", directories.Answer{Verified: true, Backend: "10.0.0.9:1143", User: "robert", Password: "other"}},
		{"referred", directories.Answer{Verified: true, Backend: "10.0.0.8"}},
		{"renamed", directories.Answer{Verified: true, User: "other@a.example"}},
		{"locked", directories.Answer{}},
		{"elsewhere", directories.Answer{}},
	} {
		answer, err := v.Lookup(t.Context(), question(tt.user+"@a.example", password))
		if answer != tt.want || errors.Is(err, directories.ErrDenied) == tt.want.Verified {
			t.Errorf("%s: %+v, %v", tt.user, answer, err)
		}
		if got := verdict(t, v, question(tt.user+"@a.example", "wrong")); got != isWrong {
			t.Errorf("a wrong password of %s's is %s", tt.user, got)
		}
	}
	s.logged(t, "auth: Info: ", "(alice@a.example,203.0.113.5,<a-session>)")
}

// TestDovecotExchange: SCRAM goes through, between a client and a real Dovecot that prove to each other that they know the
// password.
func TestDovecotExchange(t *testing.T) {
	t.Parallel()
	s := startDovecot(t, "store1", passwords, "alice@a.example")
	c := askDovecot(t, s)
	c.Cache = time.Minute
	v := verifying(t, c)
	d, ok := directories.AsDovecot(v)
	if !ok {
		t.Fatal("no Dovecot")
	}
	if err := d.Learn(t.Context()); err != nil || !slices.Contains(d.Offers(), "SCRAM-SHA-256") {
		t.Fatalf("%v, %v", d.Offers(), err)
	}
	for secret, right := range map[string]bool{password: true, "wrong": false} {
		q := question("alice@a.example", "")
		q.Mechanism = "SCRAM-SHA-256"
		client := &scram{user: q.User, password: secret}
		verified := false
		q.Exchange = &directories.Exchange{Name: q.User, First: []byte(client.first()), Ask: func(challenge []byte) ([]byte, error) {
			if strings.HasPrefix(string(challenge), "r=") {
				return []byte(client.final(t, string(challenge))), nil
			}
			client.verify(t, string(challenge))
			verified = true
			return nil, nil
		}}
		answer, err := v.Lookup(t.Context(), q)
		if answer.Verified != right || verified != right || errors.Is(err, directories.ErrDenied) == right {
			t.Errorf("%s: %+v, %v; the server has proved itself: %v", secret, answer, err, verified)
		}
	}
	gone := errors.New("the client has left")
	q := question("alice@a.example", "")
	q.Mechanism = "SCRAM-SHA-256"
	for range 10 {
		client := &scram{user: q.User, password: password}
		q.Exchange = &directories.Exchange{Name: q.User, First: []byte(client.first()), Ask: func([]byte) ([]byte, error) { return nil, gone }}
		if _, err := v.Lookup(t.Context(), q); !errors.Is(err, gone) {
			t.Error(err)
		}
	}
	if got := verdict(t, v, question("alice@a.example", password)); got != isRight {
		t.Errorf("behind exchanges that were given up the password is %s", got)
	}
}

// TestVerifiedHere: passwords are a verifier's business, and a store takes jackdaw's word for its users. While the verifier is down
// nobody is told that his password is wrong. Where it says who lives elsewhere, he is brought there.
func TestVerifiedHere(t *testing.T) {
	t.Parallel()
	store1 := startDovecot(t, "store1", passwords, "alice@a.example")
	store2 := startDovecot(t, "store2", passwords, "moved@a.example")
	users := startDovecot(t, "users", passwords)
	dir := serverDir(t)
	saslauthd := startSaslauthd(t, store1, dir)
	onBehalf := fmt.Sprintf("login = \"master\"\nlogin_user = %q\nlogin_password = %q", proxyUser, proxyPassword)
	stores := store1.backend(onBehalf) + store2.backend() + "[[route]]\nto = \"store1\"\n"
	auth := func(verify, socket string) string {
		return fmt.Sprintf("[auth]\nverify = %q\nsocket = %q\ntimeout = \"10s\"\ncache = \"1s\"\n", verify, socket)
	}
	jd := startJackdaw(t, stores, auth("saslauthd", filepath.Join(dir, "mux")))
	login := func(user, secret string) string {
		_, status := jd.imap("mail.a.example").command("LOGIN " + user + " " + secret)
		return status
	}
	wants := func(user, secret, prefix string) {
		t.Helper()
		if status := login(user, secret); !strings.HasPrefix(status, prefix) {
			t.Errorf("%s with %q is told %q, want %q", user, secret, status, prefix)
		}
	}
	for _, verifier := range []struct {
		auth string
		*process
	}{{auth("saslauthd", filepath.Join(dir, "mux")), saslauthd}, {auth("dovecot", askDovecot(t, users).Socket), users.process}} {
		write(t, filepath.Join(users.dir, "users"), "alice@a.example:{PLAIN}"+password+"\nmoved@a.example:{PLAIN}"+password+
			"::::::proxy=y host="+store2.host+" port="+portIMAP+"\nlocked@a.example:{PLAIN}"+password+"::::::nologin=y\n")
		before := jd.count("reloaded")
		jd.reload(stores, verifier.auth)
		jd.loggedTimes(t, before+1, "reloaded")
		wants("alice", password, "OK ")
		wants("alice", "wrong", "NO [AUTHENTICATIONFAILED]")
		wants("nobody", password, "NO [AUTHENTICATIONFAILED]")
		if verifier.process == users.process {
			wants("locked", password, "NO [AUTHENTICATIONFAILED]")
			if folders := jd.folders(t, "mail.a.example", "moved"); !strings.Contains(folders, store2.folder()) {
				t.Errorf("moved has %q", folders)
			}
		}
		verifier.kill()
		time.Sleep(time.Second) // what is remembered is no longer believed
		wants("alice", password, "NO [UNAVAILABLE]")
		wants("alice", "wrong", "NO [UNAVAILABLE]")
	}
}
