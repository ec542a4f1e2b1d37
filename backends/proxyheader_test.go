package backends

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// writeHeader tells what a store makes of a PROXY header.
func writeHeader(header *proxyproto.Header) string {
	switch {
	case header == nil:
		return "none"
	case header.Command.IsLocal():
		return "local"
	}
	text := fmt.Sprintf("%v to %v", header.SourceAddr, header.DestinationAddr)
	tlvs, err := header.TLVs()
	if err != nil {
		return err.Error()
	}
	for _, tlv := range tlvs {
		switch {
		case tlv.Type == proxyproto.PP2_TYPE_AUTHORITY:
			text += ", for " + string(tlv.Value)
		case tlvparse.IsSSL(tlv):
			ssl, err := tlvparse.SSL(tlv)
			if err != nil {
				return err.Error()
			}
			version, _ := ssl.SSLVersion()
			cipher, _ := ssl.SSLCipher()
			text += fmt.Sprintf(", %s %s, certificate: %v %v", version, cipher, ssl.ClientCertConn(), ssl.Verified())
		default:
			text += fmt.Sprintf(", %x", tlv.Type)
		}
	}
	return text
}

func TestSendProxyHeader(t *testing.T) {
	for name, want := range map[string]string{
		"v4":       "192.0.2.7:50000 to 198.51.100.1:995, for mail.example.org, TLSv1.3 TLS_AES_128_GCM_SHA256, certificate: false false",
		"v6":       "[fe80::1]:1 to [2001:db8::2]:143",
		"mixed":    "192.0.2.7:1 to [2001:db8::2]:143, TLSv1.2 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, certificate: false false",
		"unix":     "local",
		"unproven": "local",
		"":         "local", // we come for ourselves
	} {
		var sent bytes.Buffer
		client := new(Peer)
		*client = peers[name]
		switch name {
		case "":
			client = nil
		case "v4":
			client.Cipher = tls.TLS_AES_128_GCM_SHA256
		}
		if err := sendProxyHeader(&sent, client); err != nil {
			t.Fatal(err)
		}
		header, err := proxyproto.Read(bufio.NewReader(&sent))
		if got := writeHeader(header); err != nil || got != want {
			t.Errorf("%q: %s %v, want\n%s", name, got, err, want)
		}
	}
}

// The octets are those of HAProxy's proxy-protocol.txt, sections 2.2 and 2.2.5.
func TestProxyHeaderOctets(t *testing.T) {
	var local, mixed bytes.Buffer
	if err := sendProxyHeader(&local, nil); err != nil {
		t.Fatal(err)
	}
	if want := "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"; local.String() != want {
		t.Errorf("%q, want %q", &local, want)
	}
	peer := peers["mixed"]
	peer.SNI = "a.example"
	if err := sendProxyHeader(&mixed, &peer); err != nil {
		t.Fatal(err)
	}
	const cipher = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
	want := "\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x6a" +
		strings.Repeat("\x00", 10) + "\xff\xff\xc0\x00\x02\x07" + "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x02" + "\x00\x01\x00\x8f" +
		"\x02\x00\x09a.example" +
		"\x20\x00\x37\x01\x00\x00\x00\x01" + "\x21\x00\x07TLSv1.2" + "\x23\x00\x25" + cipher
	if mixed.String() != want {
		t.Errorf("%q, want\n%q", &mixed, want)
	}
}
