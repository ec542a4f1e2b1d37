package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"jackdaw/backends"
	"jackdaw/configs"
)

// mailer is a client that has several stores behind the proxy: the users of store1.example are at store1, and so on.
type mailer struct {
	t      *testing.T
	client net.Conn
	read   *bufio.Reader
	logs   lockedBuffer
	crash  string // when this is logged
	stop   func() // as the server does it
	done   chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

// lmtpSettings are those of a listener for LMTP with these stores behind it, which were all reached.
func lmtpSettings(t testing.TB, logs io.Writer, change func(*configs.Config), stores ...*lmtpStore) *settings {
	t.Helper()
	config := testConfig()
	config.Listen.Listeners[0] = configs.Listener{Service: configs.LMTP, Name: "lmtp", TLS: configs.TLSNone}
	config.Routes = nil
	for _, s := range stores {
		access := testAccess
		access.Addresses = []configs.Address{s.address}
		ways := map[configs.Service]configs.Access{configs.LMTP: access}
		config.Backends = append(config.Backends, configs.Backend{Name: s.name, Access: ways})
		config.Routes = append(config.Routes, configs.Route{Domain: []string{s.name + ".example"}, To: s.name})
	}
	change(config)
	router, err := backends.NewRouter(config, nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { router.Retire(nil) })
	for _, s := range router.Services() {
		for _, known := s.Capabilities(); !known; _, known = s.Capabilities() {
			time.Sleep(time.Millisecond)
		}
	}
	setup := testSetup(t, &configs.Config{Listen: config.Listen}, testAccess)
	setup.Config, setup.Router = config, router
	return testSettings(setup, logs)
}

func unchanged(*configs.Config) {}

// newMailer brings up a session that has said LHLO. There is nothing between it and the proxy that holds octets.
func newMailer(t *testing.T, change func(*configs.Config), stores ...*lmtpStore) *mailer {
	t.Helper()
	m := &mailer{t: t, done: make(chan struct{})}
	settings := lmtpSettings(t, &m.logs, change, stores...)
	settings.log = settings.log.WithOptions(zap.Hooks(func(line zapcore.Entry) error {
		if line.Message == m.crash {
			panic("the test wants it")
		}
		return nil
	}))
	ctx, cancel := context.WithCancelCause(context.Background())
	m.stop = func() { cancel(errShutdown) }
	var raw net.Conn
	m.client, raw = net.Pipe()
	m.read = bufio.NewReader(m.client)
	go func() {
		serveSession(ctx, settings, raw)
		close(m.done)
	}()
	t.Cleanup(func() {
		m.client.Close()
		select {
		case <-m.done:
		case <-time.After(patience):
			t.Error("the session does not end with its client")
		}
	})
	_ = m.client.SetDeadline(time.Now().Add(3 * patience))
	m.hears("220 ")
	m.says("LHLO client.example\r\n")
	for line := "250-"; strings.HasPrefix(line, "250-"); {
		line = m.line()
	}
	return m
}

// says writes, while answers may come.
func (m *mailer) says(text string) {
	m.t.Helper()
	if _, err := io.WriteString(m.client, text); err != nil {
		m.t.Fatalf("saying %.80q: %v", text, err)
	}
}

func (m *mailer) line() string {
	m.t.Helper()
	line, err := m.read.ReadString('\n')
	if err != nil {
		m.t.Fatalf("heard %q and %v", line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// hears wants answers that begin so.
func (m *mailer) hears(beginnings ...string) {
	m.t.Helper()
	for i, want := range beginnings {
		if got := m.line(); !strings.HasPrefix(got, want) {
			m.t.Fatalf("answer %d is %q, want %q", i+1, got, want)
		}
	}
}

// sends says commands one after the other, and wants each answered so.
func (m *mailer) sends(pairs ...string) {
	m.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		m.says(pairs[i] + "\r\n")
		m.hears(pairs[i+1])
	}
}

// begins a message for recipients who are all accepted, up to DATA.
func (m *mailer) begins(to ...string) {
	m.t.Helper()
	m.sends("MAIL FROM:<bob@b.example>", "250 ")
	for _, to := range to {
		m.sends("RCPT TO:<"+to+">", "250 ")
	}
	m.sends("DATA", "354 ")
}

// closes leaves, and waits for the session to end.
func (m *mailer) closes() {
	m.client.Close()
	<-m.done
}

// logged lists the lines of a message.
func (m *mailer) logged(message string) []map[string]any {
	m.logs.mu.Lock()
	defer m.logs.mu.Unlock()
	var lines []map[string]any
	for line := range strings.Lines(m.logs.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			m.t.Fatal(err)
		}
		if fields["msg"] == message {
			lines = append(lines, fields)
		}
	}
	return lines
}

const letter1 = "Subject: x\r\n\r\n..\r\nbody\r\n.\r\n"
