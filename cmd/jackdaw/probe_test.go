package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
)

// answers is how a server of a script behaves: to a line of the client that begins with ask it answers say. The first
// answer is the greeting. Behind TLS! a handshake follows, close! is the end, and flood!
// has none.
type answers []struct{ ask, say string }

// readAnswers reads lines "ask => say", in which say has Go's escapes.
func readAnswers(ts *testscript.TestScript, file string) (all answers) {
	for line := range strings.Lines(ts.ReadFile(file)) {
		ask, say, ok := strings.Cut(strings.TrimSpace(line), "=>")
		if !ok {
			ts.Fatalf("%s: no => in %q", file, line)
		}
		say, err := strconv.Unquote(`"` + strings.ReplaceAll(strings.TrimSpace(say), `"`, `\"`) + `"`)
		ts.Check(err)
		all = append(all, struct{ ask, say string }{strings.TrimSpace(ask), say})
	}
	return all
}

func makeServer(ts *testscript.TestScript, _ bool, args []string) {
	all := readAnswers(ts, args[1])
	dir, implicit := strings.CutPrefix(args[2], "implicit:")
	base := filepath.Join(ts.MkAbs(dir), filepath.Base(dir))
	pair, err := tls.LoadX509KeyPair(base+".crt", base+".key")
	ts.Check(err)
	config := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"imap"}}
	network, address := "tcp", "127.0.0.1:0"
	if len(args) > 3 {
		network, address = "unix", ts.MkAbs(args[3])
	}
	listener, err := net.Listen(network, address)
	ts.Check(err)
	ts.Setenv(args[0], listener.Addr().String())
	ts.Defer(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if implicit {
				conn = tls.Server(conn, config)
			}
			go all.serve(conn, config)
		}
	}()
}

func (all answers) serve(conn net.Conn, config *tls.Config) {
	defer func() { conn.Close() }()
	lines := bufio.NewReader(conn)
	for line := ""; ; {
		for _, a := range all {
			if (line == "") != (a.ask == "") || !strings.HasPrefix(line, a.ask) {
				continue
			}
			say, leaves := strings.CutSuffix(a.say, "close!")
			say, handshake := strings.CutSuffix(say, "TLS!")
			for strings.HasSuffix(say, "flood!") {
				if _, err := io.WriteString(conn, strings.TrimSuffix(say, "flood!")); err != nil {
					return
				}
			}
			if say != "" {
				_, _ = io.WriteString(conn, say+"\r\n")
			}
			if leaves {
				return
			}
			if handshake {
				conn = tls.Server(conn, config)
				lines = bufio.NewReader(conn)
			}
			break
		}
		var err error
		if line, err = lines.ReadString('\n'); err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
	}
}

// TestFaults has chains as servers send them, and what an operator reads of them.
func TestFaults(t *testing.T) {
	now := time.Now()
	made := newChain(t, now.AddDate(0, 0, 30))
	old := newChain(t, now.AddDate(0, 0, -1))
	other := newChain(t, now.AddDate(0, 0, 30))
	authority := func(c testChain) *x509.CertPool {
		pool := x509.NewCertPool()
		pool.AddCert(c.root)
		return pool
	}
	for _, test := range []struct {
		what  string
		chain []*x509.Certificate
		roots *x509.CertPool
		name  string
		want  []string
	}{
		{"good", made.of(made.leaf, made.middle), authority(made), "mail.a.example", nil},
		{"with its root", made.of(made.leaf, made.middle, made.root), authority(made), "MAIL.a.example", nil},
		{"in disorder", made.of(made.leaf, made.root, made.middle), authority(made), "mail.a.example", nil},
		{"other name", made.of(made.leaf, made.middle), authority(made), "mail.b.example",
			[]string{"certificate is for other names, not for mail.b.example"}},
		{"no name", made.of(made.leaf, made.middle), authority(made), "",
			[]string{"nobody said which name the certificate should be for: use --sni"}},
		{"expired, and for another name, and of an unknown authority", old.of(old.leaf, old.middle), authority(made), "x.example",
			[]string{"certificate has expired on " + old.leaf.NotAfter.Format(whenExactly),
				"certificate is for other names, not for x.example", "unknown authority CN=root"}},
		{"expired, but good apart from that", old.of(old.leaf, old.middle), authority(old), "mail.a.example",
			[]string{"certificate has expired on " + old.leaf.NotAfter.Format(whenExactly)}},
		{"incomplete", made.of(made.leaf), authority(made), "mail.a.example",
			[]string{"incomplete chain: the certificate of the issuer, CN=middle, is not sent, and not known here"}},
		{"with another's", made.of(made.leaf, other.middle), authority(made), "mail.a.example",
			[]string{"incomplete chain: the certificate of the issuer, CN=middle, is not sent, and not known here"}},
		{"unknown, with its root", made.of(made.leaf, made.middle, made.root), authority(other), "mail.a.example",
			[]string{"unknown authority CN=root"}},
		{"signed by itself", made.of(made.root), authority(other), "root.example", []string{"certificate is signed by itself"}},
	} {
		t.Run(test.what, func(t *testing.T) {
			if diff := cmp.Diff(test.want, faults(test.chain, test.name, test.roots, now)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A handshake can be worth nothing whatever the certificate.
func TestWeaknesses(t *testing.T) {
	if got := weaknesses(&tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}); got != nil {
		t.Errorf("TLS 1.3 has %q", got)
	}
	want := []string{"TLS 1.0 is out of date (RFC 8996)", "cipher suite TLS_RSA_WITH_RC4_128_SHA is weak"}
	got := weaknesses(&tls.ConnectionState{Version: tls.VersionTLS10, CipherSuite: tls.TLS_RSA_WITH_RC4_128_SHA})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// testChain is a leaf with its issuers.
type testChain struct{ leaf, middle, root *x509.Certificate }

func (testChain) of(chain ...*x509.Certificate) []*x509.Certificate { return chain }

func newChain(t *testing.T, notAfter time.Time) testChain {
	root, key := newCertificate(t, "root", nil, nil, time.Now().AddDate(1, 0, 0))
	middle, middleKey := newCertificate(t, "middle", root, key, time.Now().AddDate(1, 0, 0))
	leaf, _ := newCertificate(t, "mail.a.example", middle, middleKey, notAfter)
	return testChain{leaf, middle, root}
}

func newCertificate(t *testing.T, name string, by *x509.Certificate, byKey *ecdsa.PrivateKey, notAfter time.Time) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: notAfter,
		IsCA: !strings.Contains(name, "."), BasicConstraintsValid: true,
	}
	if by == nil {
		by, byKey, template.DNSNames = template, key, []string{"root.example"}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), byKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}
