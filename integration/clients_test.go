package integration

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os/exec"
	"strings"
	"testing"
)

// tool runs a client to its end, which must be good, and returns what it printed.
func tool(t testing.TB, input, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out.Bytes(), errOut.Bytes())
	}
	return out.String()
}

func curl(t testing.TB, args ...string) string {
	t.Helper()
	return tool(t, "", "curl", append([]string{"--silent", "--show-error"}, args...)...)
}

// opensslPeer makes a TLS connection with openssl, after STARTTLS where a protocol for it is given, and returns the
// certificate that the server showed. The authority's certificate is in the file ca.
func opensslPeer(t testing.TB, address, ca, name, startTLS string) *x509.Certificate {
	t.Helper()
	args := []string{"s_client", "-connect", address, "-CAfile", ca, "-verify_return_error", "-servername", name}
	if startTLS != "" {
		args = append(args, "-starttls", startTLS)
	}
	block, _ := pem.Decode([]byte(tool(t, "", "openssl", args...)))
	if block == nil {
		t.Fatalf("openssl at %s shows no certificate", address)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// plain is the message of SASL PLAIN.
func plain(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}
