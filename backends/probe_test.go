package backends

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"

	"jackdaw/configs"
)

func probeOf(address configs.Address) Probe {
	return Probe{Protocol: configs.IMAP, Address: address, Mode: configs.TLSNone, Limit: patience}
}

func steps(met *Probed) string {
	var names []string
	for _, lap := range met.Laps {
		names = append(names, lap.Step)
	}
	return strings.Join(names, " ")
}

func TestProbe(t *testing.T) {
	for _, mode := range []configs.TLSMode{configs.TLSNone, configs.TLSStartTLS, configs.TLSImplicit} {
		t.Run(string(mode), func(t *testing.T) {
			f := serve(t, onLoopback, func(f *fakeStore) { f.mode, f.tls = mode, certificate(t, "store.example") })
			p := probeOf(f.address)
			p.Mode, p.TLS = mode, &tls.Config{RootCAs: authority().Pool(), ServerName: "store.example"}
			met, err := p.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer met.Leave()
			if met.Greeting != "* OK ready" || !slices.Equal(met.Capabilities.Mechanisms, []string{"PLAIN"}) {
				t.Errorf("it says %q and offers %q", met.Greeting, met.Capabilities.Mechanisms)
			}
			if (met.TLS != nil) != (mode != configs.TLSNone) || met.TLS != nil && len(met.TLS.PeerCertificates) == 0 {
				t.Errorf("TLS is %v", met.TLS)
			}
			welcome, err := met.Login(t.Context(), "alice", "secret")
			if err != nil || welcome.Capabilities == "" {
				t.Errorf("the login ends with %v, %v", welcome, err)
			}
			want := map[configs.TLSMode]string{
				configs.TLSNone:     "dial greeting capabilities login",
				configs.TLSStartTLS: "dial greeting STARTTLS TLS capabilities login",
				configs.TLSImplicit: "dial TLS greeting capabilities login",
			}[mode]
			if got := steps(met); got != want {
				t.Errorf("its steps were %q, want %q", got, want)
			}
		})
	}
}

// What was met up to an error is told.
func TestProbeFails(t *testing.T) {
	f := serve(t, onLoopback, func(f *fakeStore) { f.mode, f.tls = configs.TLSImplicit, certificate(t, "store.example") })
	p := probeOf(f.address)
	p.Mode, p.TLS = configs.TLSImplicit, &tls.Config{RootCAs: authority().Pool(), ServerName: "store.example"}
	f.set(func(f *fakeStore) { f.greeting = "* BYE not now" })
	met, err := p.Open(t.Context())
	if err == nil || met.Greeting != "* BYE not now" || met.TLS == nil || met.Remote == nil {
		t.Errorf("met %+v, with %v", met, err)
	}
	if got := steps(met); got != "dial TLS greeting" {
		t.Errorf("its steps were %q", got)
	}
	if _, err := p.Open(cancelled()); err == nil {
		t.Error("no error when nobody waits any more")
	}
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// A PROXY header goes first, with both addresses of one family. A server without PLAIN is asked by LOGIN.
func TestProbeForClient(t *testing.T) {
	for client, want := range map[string]string{
		"192.0.2.1":   "192.0.2.1:4321 127.0.0.1:",
		"2001:db8::1": "[2001:db8::1]:4321 [2001:db8::1]:0",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		heard := make(chan string, 1)
		go func() { heard <- playLogin(l) }()
		p := probeOf(configs.Address{Network: "tcp", Address: l.Addr().String()})
		p.Proxy = &Peer{Client: netip.MustParseAddr(client), Port: 4321}
		met, err := p.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := met.Login(t.Context(), "alice", "secret"); err != nil {
			t.Error(err)
		}
		met.Leave()
		l.Close()
		if got := <-heard; !strings.HasPrefix(got, want) || !strings.HasSuffix(got, " YWxpY2U= c2VjcmV0") {
			t.Errorf("the server heard %q, want %q and the password", got, want)
		}
	}
}

// playLogin is a server behind a PROXY header that knows LOGIN alone.
func playLogin(l net.Listener) string {
	conn, err := l.Accept()
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	header, err := proxyproto.Read(lines)
	if err != nil {
		return err.Error()
	}
	heard := fmt.Sprint(header.SourceAddr, " ", header.DestinationAddr)
	for _, say := range []string{"* OK [CAPABILITY IMAP4rev1 AUTH=LOGIN] hi", "+ VXNlcg==", "+ UGFzcw==", "J3 OK [CAPABILITY IMAP4rev1] in"} {
		fmt.Fprint(conn, say, "\r\n")
		line, _ := lines.ReadString('\n')
		if strings.HasPrefix(say, "+") {
			heard += " " + strings.TrimSpace(line)
		}
	}
	return heard
}
