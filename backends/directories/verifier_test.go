package directories

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
)

// patience is how long a test waits for what comes soon.
const patience = 20 * time.Second

// socketServer serves each connection to a unix socket by a function, which gets its number, from 1. The test ends when the last
// one has ended, as its client has.
func socketServer(t testing.TB, serve func(c net.Conn, number int)) (path string) {
	t.Helper()
	path = socketPath(t)
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for number := 1; ; number++ {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			all.Go(func() {
				serve(c, number)
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		all.Wait()
	})
	return path
}

// socketPath is short: a socket's name has room for about a hundred octets.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "jackdaw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "socket")
}

// openVerifier makes one that asks at a socket.
func openVerifier(t testing.TB, c configs.Auth) Directory {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = patience
	}
	v, err := OpenVerifier(c, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// login is a question of anna's, who logs in by IMAP.
func login(password string) Query {
	q := anna
	q.Service, q.Mechanism, q.Secret, q.Verify = configs.IMAPS, "PLAIN", password, true
	return q
}

// failsWith wants an error of the world that says this.
func failsWith(t testing.TB, v Directory, q Query, text string) {
	t.Helper()
	answer, err := v.Lookup(t.Context(), q)
	if err == nil || errors.Is(err, ErrDenied) || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), text) || answer != (Answer{}) {
		t.Errorf("got %+v, %v; want an error with %q", answer, err, text)
	}
	if err != nil && strings.Contains(err.Error(), "secret") {
		t.Errorf("the secret stands in %q", err)
	}
}

func TestOpenVerifier(t *testing.T) {
	for verify, want := range map[configs.Verify]bool{
		configs.VerifyBackend: false, configs.VerifyDirectory: false, configs.VerifySaslauthd: true, configs.VerifyDovecot: true,
	} {
		v, err := OpenVerifier(configs.Auth{Verify: verify}, zap.NewNop())
		if err != nil || (v != nil) != want {
			t.Errorf("%s: %v, %v", verify, v, err)
		}
		if v != nil {
			v.Close()
		}
	}
	if _, err := OpenVerifier(configs.Auth{Verify: "pam"}, zap.NewNop()); err == nil {
		t.Error("anything is a verifier")
	}
}

// What cannot be right is wrong, and nobody is asked; what is no question of a login fails.
func TestVerifiersAskNoNonsense(t *testing.T) {
	socket := socketServer(t, func(c net.Conn, _ int) {
		said, _ := io.ReadAll(c) // Dovecot is greeted in the background, and told no more
		if greeting := fmt.Sprintf("VERSION\t1\t2\nCPID\t%d\n", os.Getpid()); !strings.HasPrefix(greeting, string(said)) {
			t.Errorf("a verifier was asked: %q", said)
		}
	})
	for _, kind := range []configs.Verify{configs.VerifySaslauthd, configs.VerifyDovecot} {
		v := openVerifier(t, configs.Auth{Verify: kind, Socket: socket})
		for what, change := range map[string]func(*Query){
			"no password":       func(q *Query) { q.Secret = "" },
			"NUL in a password": func(q *Query) { q.Secret = "right\x00" },
			"no name":           func(q *Query) { q.User, q.Local, q.Domain = "", "", "" },
			"NUL in a name":     func(q *Query) { q.User, q.Local = "anna\x00", "anna\x00" },
			"tab in a name":     func(q *Query) { q.User = "anna\tsecured=tls" },
			"line in a name":    func(q *Query) { q.User = "anna\nAUTH\t2" },
			"C1 in a name":      func(q *Query) { q.User = "anna\u0085" },
			"no UTF-8":          func(q *Query) { q.User = "anna\xff" },
			"long name":         func(q *Query) { q.User = strings.Repeat("a", 513); q.Local = q.User },
			"long password":     func(q *Query) { q.Secret = strings.Repeat("x", 1<<16) },
		} {
			if kind == configs.VerifyDovecot && what == "long password" {
				continue // see TestDovecotReadsNoMore
			}
			q := login("secret")
			change(&q)
			if answer, err := v.Lookup(t.Context(), q); !errors.Is(err, ErrDenied) || answer != (Answer{}) {
				t.Errorf("%s, %s: %+v, %v", kind, what, answer, err)
			}
		}
		delivery := login("secret")
		delivery.Service = configs.LMTP
		failsWith(t, v, delivery, "lmtp has no login")
		failsWith(t, v, anna, "places nobody")
	}
}

// hear reads what a fake server is told, up to a number of octets.
func hear(t testing.TB, r io.Reader, n int) string {
	b := make([]byte, n)
	got, err := io.ReadFull(r, b)
	if err != nil {
		t.Logf("the server hears %q, %v", b[:got], err)
	}
	return string(b[:got])
}
