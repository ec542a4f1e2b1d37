package integration

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
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

// sieveConnect runs one action of sieve-connect at jackdaw, which it knows by a name.
func sieveConnect(t testing.TB, jd *jackdaw, name, user string, action ...string) string {
	t.Helper()
	return tool(t, password+"\n", "sieve-connect", append([]string{
		"--server", jd.host, "--port", portSieve, "--nosrv", "--tlshostname", name, "--tlscafile", jd.caFile(),
		"--user", user, "--passwordfd", "0"}, action...)...)
}

// maildir is where a user of mbsync keeps mail.
type maildir string

func newMaildir(t testing.TB) maildir {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, "INBOX", sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return maildir(dir)
}

// deliver puts a message there.
func (m maildir) deliver(t testing.TB, subject string) {
	t.Helper()
	if err := os.Rename(mailFile(t, subject), filepath.Join(string(m), "INBOX/new/1.1.here")); err != nil {
		t.Fatal(err)
	}
}

// read returns all messages there.
func (m maildir) read(t testing.TB) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(string(m), "INBOX", "[cn]*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

// mailFile makes a message for a client to send.
func mailFile(t testing.TB, subject string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mail")
	if err := os.WriteFile(file, []byte("Subject: "+subject+"\r\n\r\nHello.\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// mbsync synchronises a user's INBOX at jackdaw, both ways. It reaches its host by a tunnel, for want of a name server.
func mbsync(t testing.TB, jd *jackdaw, mechanism, user string, m maildir) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mbsyncrc")
	write(t, file, expand(mbsyncConfig, map[string]string{
		"tunnel": tunnelCommand(t, jd.at(portIMAP)), "ca": jd.caFile(), "dir": string(m),
		"user": user, "password": password, "mechanism": mechanism,
	}))
	tool(t, "", "mbsync", "--config", file, "--all", "--quiet")
}

const mbsyncConfig = `
IMAPAccount there
Host mail.a.example
Tunnel "$tunnel"
SSLType STARTTLS
SystemCertificates no
CertificateFile $ca
AuthMechs $mechanism
User $user
Pass $password

IMAPStore there
Account there

MaildirStore here
Path $dir/
Inbox $dir/INBOX

Channel both
Far :there:
Near :here:
Sync All
Expunge None
SyncState *
`
