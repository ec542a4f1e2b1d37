package proxy

import (
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

func say(t *testing.T, to net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(to, text); err != nil {
		t.Fatal(err)
	}
}

// closeWrite ends what a connection has to say: under TLS by close_notify, else by FIN.
func closeWrite(c net.Conn) error { return c.(interface{ CloseWrite() error }).CloseWrite() }

// Much that moves in both directions at once arrives as it was sent, through TLS.
func TestRelayBulk(t *testing.T) {
	const size = 16 << 20
	p := newPlayer(t)
	p.play("testdata/imap/relay-bulk", `# A session under TLS.
= service imaps
= store * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] store1 ready
C* starttls mail.example.org
S* * OK
C: a LOGIN alice secret
	B: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] store1 ready
	P: J3 AUTHENTICATE PLAIN base64(\x00alice\x00secret)
	B: J3 OK [CAPABILITY IMAP4rev1] in
S* a OK
`)
	for _, c := range []net.Conn{p.client, p.store} {
		_ = c.SetDeadline(time.Now().Add(6 * patience))
	}
	sums := make(chan [sha256.Size]byte, 4)
	send := func(to net.Conn, seed uint64) {
		hash := sha256.New()
		random := io.LimitReader(rand.NewChaCha8([32]byte{byte(seed)}), size)
		if _, err := io.Copy(io.MultiWriter(to, hash), random); err != nil {
			t.Error(err)
		}
		if err := closeWrite(to); err != nil {
			t.Error(err)
		}
		sums <- [sha256.Size]byte(hash.Sum(nil))
	}
	receive := func(from io.Reader) [sha256.Size]byte {
		hash := sha256.New()
		if n, err := io.Copy(hash, from); n != size || err != nil {
			t.Errorf("received %d and %v", n, err)
		}
		return [sha256.Size]byte(hash.Sum(nil))
	}
	go send(p.client, 1)
	go func() { sums <- receive(p.read) }()
	atStore := make(chan [sha256.Size]byte)
	go func() { atStore <- receive(p.from) }()
	send(p.store, 2)
	got := <-atStore
	seen := map[[sha256.Size]byte]int{got: 1}
	for range 3 {
		seen[<-sums]++
	}
	if len(seen) != 2 { // two streams, each at both of its ends
		t.Error("what arrived is not what was sent")
	}
	p.end()
}
