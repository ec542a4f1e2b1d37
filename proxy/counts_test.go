package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"jackdaw/backends"
	"jackdaw/configs"
)

// Every service and every mechanism has counters of its own.
func TestCountsHaveRoom(t *testing.T) {
	if n := len(configs.Services()); n > maxServices {
		t.Errorf("%d services have room for %d", n, maxServices)
	}
	for _, m := range mechanisms {
		if !slices.Contains(countedMechanisms[:], m.name) {
			t.Errorf("%s is counted with others", m.name)
		}
	}
}

func TestLoginsCounted(t *testing.T) {
	var c counts
	for _, one := range []struct {
		service   configs.Service
		mechanism string
		err       error
	}{
		{configs.IMAP, "PLAIN", nil},
		{configs.IMAP, "PLAIN", nil},
		{configs.Sieve, "PLAIN", &backends.Refusal{Denied: true}},
		{configs.IMAP, "PLAIN", backends.ErrNotFound},
		{configs.IMAP, "LOGIN", errors.New("connection refused")},
		{configs.POP3S, "X-NEW", &backends.Refusal{Code: "IN-USE"}},
		{configs.IMAPS, "SCRAM-SHA-256", errCancelled},
		{configs.IMAPS, "PLAIN", errUserFull},
		{configs.IMAPS, "EXTERNAL", fmt.Errorf("%w: by the directory", errNotPermitted)},
	} {
		c.tried(one.service, one.mechanism, one.err)
	}
	want := []LoginCount{
		{configs.IMAP, "PLAIN", "ok", 2}, {configs.IMAP, "PLAIN", "denied", 1}, {configs.IMAP, "LOGIN", "unavailable", 1},
		{configs.IMAPS, "PLAIN", "limit", 1}, {configs.IMAPS, "SCRAM-SHA-256", "cancelled", 1},
		{configs.IMAPS, "EXTERNAL", "not_permitted", 1},
		{configs.POP3S, "other", "in_use", 1}, {configs.Sieve, "PLAIN", "denied", 1},
	}
	if diff := cmp.Diff(want, c.listLogins()); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}

// Failed handshakes are told apart by who has ended them.
func TestHandshakesCounted(t *testing.T) {
	server := func(client func(net.Conn)) error {
		theirs, ours := tcpPair(t)
		defer ours.Close()
		go client(theirs)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return tls.Server(ours, testTLS()).HandshakeContext(ctx)
	}
	shake := func(config *tls.Config) func(net.Conn) {
		return func(c net.Conn) { defer c.Close(); _ = tls.Client(c, config).Handshake() }
	}
	for _, test := range []struct {
		what, want string
		client     func(net.Conn)
	}{
		{"leaves at once", "left", func(c net.Conn) { c.Close() }},
		{"talks HTTP", "nonsense", func(c net.Conn) { defer c.Close(); fmt.Fprint(c, "GET / HTTP/1.1\r\n\r\n") }},
		{"knows no such authority", "alert", shake(&tls.Config{ServerName: "mail.example.org"})},
		{"is too old", "refused", shake(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})},
	} {
		if got := handshakeFailure(server(test.client)); got != test.want {
			t.Errorf("a client that %s is counted as %q, want %q", test.what, got, test.want)
		}
	}
	if got := handshakeFailure(fmt.Errorf("read: %w", os.ErrDeadlineExceeded)); got != "timeout" {
		t.Errorf("a client that says nothing is counted as %q", got)
	}
	var c counts
	c.shook(&tls.ConnectionState{Version: tls.VersionTLS13, DidResume: true}, nil, time.Millisecond)
	c.shook(nil, io.EOF, time.Hour)
	want := []HandshakeCount{{"resumed", "1.3", 1}, {"left", "", 1}}
	if diff := cmp.Diff(want, c.listHandshakes()); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
	if n := c.handshake.Read().Count; n != 1 {
		t.Errorf("counted the time of %d handshakes, want that of the one that came to an end", n)
	}
}

// A server counts the sessions that it has, and what they have moved until their end and beyond it.
func TestSessionsCounted(t *testing.T) {
	h := newHost(t)
	path := t.TempDir() + "/imap"
	h.listens(imap("unix", path))
	count := func() ServiceCount {
		services := h.Counts().Services
		if len(services) != 1 {
			t.Fatalf("counted %+v", services)
		}
		return services[0]
	}
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	greeting := make([]byte, 4)
	if _, err := io.ReadFull(client, greeting); err != nil || string(greeting) != "* OK" {
		t.Fatalf("greeted with %q, %v", greeting, err)
	}
	want := ServiceCount{configs.IMAP, 1, 0, 0, map[SessionState]int{StateHandshake: 0, StateLogin: 1, StateRelay: 0}}
	if diff := cmp.Diff(want, count()); diff != "" {
		t.Errorf("while a client is there (-want +got):\n%s", diff)
	}
	client.Close()
	for end := time.Now().Add(10 * time.Second); h.Count() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	want = ServiceCount{configs.IMAP, 1, 0, 0, map[SessionState]int{StateHandshake: 0, StateLogin: 0, StateRelay: 0}}
	if diff := cmp.Diff(want, count()); diff != "" {
		t.Errorf("when the client has gone (-want +got):\n%s", diff)
	}
}

// What a session has moved stays counted when it leaves, once.
func TestMovedCounted(t *testing.T) {
	h := newHost(t)
	h.counts.began(configs.LMTP)
	one := &session{settings: &settings{listener: configs.Listener{Service: configs.LMTP}}, arrival: &arrival{stage: StateDelivery}}
	h.sessions.enter(one)
	one.received.Store(7)
	counted := func(now map[SessionState]int) {
		t.Helper()
		if diff := cmp.Diff([]ServiceCount{{configs.LMTP, 1, 0, 7, now}}, h.Counts().Services); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	counted(map[SessionState]int{StateHandshake: 0, StateDelivery: 1})
	h.sessions.leave(one)
	one.received.Store(9) // is of no session that is there
	counted(map[SessionState]int{StateHandshake: 0, StateDelivery: 0})
}

// A recipient is counted by the first digit of the code, and as one to come again where there was no answer.
func TestRecipientsCounted(t *testing.T) {
	var c counts
	for code := range strings.SplitSeq("250 251 451 550 0", " ") {
		n := 0
		fmt.Sscan(code, &n)
		c.mailed(n)
	}
	if diff := cmp.Diff([]RecipientCount{{"delivered", 2}, {"temporary", 2}, {"refused", 1}}, c.listRecipients()); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}
