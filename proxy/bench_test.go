package proxy

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"jackdaw/configs"
)

// BenchmarkDialogue is a session from its beginning to a login's arrival, with a client that has said everything already.
func BenchmarkDialogue(b *testing.B) {
	for _, bb := range []struct {
		service configs.Service
		says    string
	}{
		{configs.IMAP, "a CAPABILITY\r\nb ID NIL\r\nc LOGIN alice@example.org secret\r\n"},
		{configs.POP3, "CAPA\r\nUSER alice@example.org\r\nPASS secret\r\n"},
		{configs.Submission, "EHLO client.example\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n"},
		{configs.Sieve, "CAPABILITY\r\nAUTHENTICATE \"PLAIN\" \"AGFsaWNlAHNlY3JldA==\"\r\n"},
	} {
		b.Run(string(bb.service), func(b *testing.B) {
			config := testConfig()
			config.Listen.Listeners[0].Service = bb.service
			config.Listen.Listeners[0].PlaintextFrom = configs.Networks{Unix: true} // the client has no network, as on a unix socket
			settings := testSettings(testSetup(b, config, testAccess), io.Discard)
			b.ReportAllocs()
			for b.Loop() {
				s := newSession(context.Background(), settings, &saidClient{says: strings.NewReader(bb.says)})
				d := s.protocol().dialogue(s)
				if err := d.Greet(); err != nil {
					b.Fatal(err)
				}
				if attempt, err := next(d); attempt == nil {
					b.Fatal(err)
				}
				s.cancel(nil)
			}
		})
	}
}

// saidClient has said everything, and reads everything at once.
type saidClient struct {
	net.Conn
	says *strings.Reader
}

func (c *saidClient) Read(p []byte) (int, error)  { return c.says.Read(p) }
func (c *saidClient) Write(p []byte) (int, error) { return len(p), nil }
func (c *saidClient) RemoteAddr() net.Addr        { return &net.UnixAddr{} }
func (c *saidClient) LocalAddr() net.Addr         { return &net.UnixAddr{} }
func (c *saidClient) SetDeadline(time.Time) error { return nil }
