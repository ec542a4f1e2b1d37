package directories

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"jackdaw/configs"
)

// said is a question or an answer as it travels.
func said(fields ...string) string {
	var b []byte
	for _, field := range fields {
		b = binary.BigEndian.AppendUint16(b, uint16(len(field)))
		b = append(b, field...)
	}
	return string(b)
}

func TestSaslauthd(t *testing.T) {
	tests := []struct {
		realm  configs.AuthRealm
		change func(*Query)
		hears  string
		says   string
		right  bool
		denied bool
		fails  string
	}{
		{says: said("OK"), right: true},
		{says: said("OK remote authentication successful"), right: true},
		{says: said("NO"), denied: true},
		{says: said("NO authentication failed"), denied: true},
		{realm: configs.RealmJoined, hears: said("anna@a.example", "secret", "imap", "", ""), says: said("OK"), right: true},
		{
			change: func(q *Query) { q.User, q.Local, q.Domain, q.Service = "anna", "anna", "", configs.POP3S },
			hears:  said("anna", "secret", "pop", "", ""), says: said("OK"), right: true,
		},
		{
			change: func(q *Query) {
				q.Service, q.Client, q.Port = configs.Submissions, netip.MustParseAddr("2001:db8::5"), 4321
			},
			hears: said("anna", "secret", "smtp", "a.example", "2001:db8::5;4321"), says: said("OK"), right: true,
		},
		{
			change: func(q *Query) {
				q.Service, q.Client, q.Port = configs.Sieve, netip.MustParseAddr("::ffff:203.0.113.5"), 1
			},
			hears: said("anna", "secret", "sieve", "a.example", "203.0.113.5;1"), says: said("OK"), right: true,
		},
		{says: said(strings.Repeat("O", 0)), fails: "neither OK nor NO"},
		{says: said("OKAY"), fails: "neither OK nor NO"},
		{says: said("ok"), fails: "neither OK nor NO"},
		{says: said("\x00OK"), fails: "neither OK nor NO"},
		{says: said(strings.Repeat("O", 1025)), fails: "an answer of 1025 octets"},
		{says: "OK\r\n", fails: "an answer of 20299 octets"},
		{says: "", fails: "ended before the answer"},
		{says: "\x00", fails: "ended before the answer"},
		{says: "\x00\x02O", fails: "ended before the answer"},
	}
	for _, tt := range tests {
		q := login("secret")
		if tt.change != nil {
			tt.change(&q)
		}
		want := tt.hears
		if want == "" {
			want = said("anna", "secret", "imap", "a.example", "")
		}
		socket := socketServer(t, func(c net.Conn, _ int) {
			if got := hear(t, c, len(want)); got != want {
				t.Errorf("saslauthd hears %q, want %q", got, want)
			}
			c.Write([]byte(tt.says))
		})
		v := openVerifier(t, configs.Auth{Verify: configs.VerifySaslauthd, Socket: socket, Realm: tt.realm})
		if tt.fails != "" {
			failsWith(t, v, q, tt.fails)
			continue
		}
		answer, err := v.Lookup(t.Context(), q)
		if answer != (Answer{Verified: tt.right}) || errors.Is(err, ErrDenied) != tt.denied || (err == nil) != tt.right {
			t.Errorf("%q: %+v, %v", tt.says, answer, err)
		}
	}
}

// saslauthd takes fields of 256 octets, and to a longer one says no itself: nobody need be asked.
func TestSaslauthdFieldsAreBounded(t *testing.T) {
	socket := socketServer(t, func(c net.Conn, _ int) {
		hear(t, c, len(said("anna", strings.Repeat("x", 256), "imap", "a.example", "")))
		c.Write([]byte(said("OK")))
	})
	v := openVerifier(t, configs.Auth{Verify: configs.VerifySaslauthd, Socket: socket})
	if answer, err := v.Lookup(t.Context(), login(strings.Repeat("x", 256))); err != nil || !answer.Verified {
		t.Errorf("%+v, %v", answer, err)
	}
	if answer, err := v.Lookup(t.Context(), login(strings.Repeat("x", 257))); !errors.Is(err, ErrDenied) || answer.Verified {
		t.Errorf("%+v, %v", answer, err)
	}
	joined := openVerifier(t, configs.Auth{Verify: configs.VerifySaslauthd, Socket: socket, Realm: configs.RealmJoined})
	q := login("x")
	q.Local = strings.Repeat("a", 250)
	q.User = q.Local + "@" + q.Domain
	if _, err := joined.Lookup(t.Context(), q); !errors.Is(err, ErrDenied) {
		t.Error(err)
	}
}

// A saslauthd that hangs, is not there or was closed says nothing of the password.
func TestSaslauthdHangs(t *testing.T) {
	for _, says := range []string{"", "\x00", said("OK")[:3]} {
		socket := socketServer(t, func(c net.Conn, _ int) {
			c.Write([]byte(says))
			hear(t, c, 1<<10)
		})
		failsWith(t, openVerifier(t, configs.Auth{Verify: configs.VerifySaslauthd, Socket: socket, Timeout: 50 * time.Millisecond}),
			login("secret"), socket+": no answer within 50ms")
	}
	nowhere := openVerifier(t, configs.Auth{Verify: configs.VerifySaslauthd, Socket: socketPath(t)})
	failsWith(t, nowhere, login("secret"), "no such file or directory")
	nowhere.Close()
	failsWith(t, nowhere, login("secret"), "closed")
}

// Who leaves need not wait for the answer.
func TestSaslauthdClientLeaves(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	socket := socketServer(t, func(c net.Conn, _ int) {
		hear(t, c, 10)
		leave()
		hear(t, c, 1<<10)
	})
	v := openVerifier(t, configs.Auth{Verify: configs.VerifySaslauthd, Socket: socket})
	if _, err := v.Lookup(ctx, login("secret")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func FuzzSaslauthd(f *testing.F) {
	for _, seed := range []string{said("OK"), said("NO x"), said(""), "\x00", "\xff\xff", "\x00\x03OK"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		right, err := readSaslauthd(bytes.NewReader(answer))
		if right && (err != nil || string(answer[2:4]) != "OK" || len(answer) < 2+int(binary.BigEndian.Uint16(answer))) {
			t.Errorf("%q is a yes", answer)
		}
	})
}
