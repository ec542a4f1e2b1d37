package relay

import (
	"bytes"
	"crypto/tls"
	"io"
	"testing"
)

// BenchmarkRelay has a client under TLS, and its store without, which take part in the time: what they do is the same for every relay.
func BenchmarkRelay(b *testing.B) {
	session := shape{clientTLS: tls.VersionTLS13}
	b.Run("line", func(b *testing.B) { // there and back
		s := start(b, session)
		b.ReportAllocs()
		for b.Loop() {
			s.say(s.client, "a NOOP\r\n")
			s.hear(s.store, "a NOOP\r\n")
			s.say(s.store, "a OK\r\n")
			s.hear(s.client, "a OK\r\n")
		}
	})
	const size = 1 << 20
	for _, way := range []string{"down", "up"} {
		b.Run(way, func(b *testing.B) {
			s := start(b, session)
			from, to := io.Writer(s.store), io.Reader(s.client)
			if way == "up" {
				from, to = s.client, s.store
			}
			message := bytes.Repeat([]byte("a line of a message, as long as many are\r\n"), size/42)
			b.SetBytes(int64(len(message)))
			b.ReportAllocs()
			for b.Loop() {
				sent := make(chan error, 1)
				go func() {
					_, err := from.Write(message)
					sent <- err
				}()
				if _, err := io.CopyN(io.Discard, to, int64(len(message))); err != nil {
					b.Fatal(err)
				}
				if err := <-sent; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
