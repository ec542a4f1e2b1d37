package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/devca"
	"jackdaw/internal/inherit"
	"jackdaw/tlsstore"
)

// The authorities of client certificates are read at each reload, though nothing else has changed. A file that cannot be read
// changes nothing.
func TestReloadClients(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	ca := [2]*devca.CA{}
	leaf := [2]devca.Leaf{}
	for i := range ca {
		var err error
		if ca[i], err = devca.New(); err == nil {
			leaf[i], err = ca[i].Issue(devca.Options{Names: []string{"mail.example"}, Emails: []string{"alice@a.example"}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	file := fmt.Sprintf("[listen]\nimaps = \"127.0.0.1:0\"\n[tls]\ncertificates = [%q]\ndefault = \"mail.example\"\nclient_ca = %q\n"+
		"[[backend]]\nname = \"store1\"\nimap = \"127.0.0.1:9\"\n", path("certs"), path("clients.pem"))
	for name, data := range map[string]string{"jackdaw.toml": file, "clients.pem": string(ca[0].PEM)} {
		if err := os.WriteFile(path(name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(path("certs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := leaf[0].Write(path("certs"), "mail"); err != nil {
		t.Fatal(err)
	}
	config, err := configs.Load(path("jackdaw.toml"))
	if err != nil {
		t.Fatal(err)
	}
	d := newDaemon(config, inherit.NewSockets())
	d.log = zap.NewNop()
	if err := d.apply(config); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.close(t.Context()) }()
	certs := d.certs

	served := func(i int) bool {
		conn, err := tls.Dial("tcp", d.server.Addresses()[0].Address.String(), &tls.Config{
			ServerName: "mail.example", RootCAs: ca[0].Pool(), MaxVersion: tls.VersionTLS12,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &leaf[i].TLS, nil },
		})
		if err != nil {
			return false
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		n, _ := conn.Read(make([]byte, 1))
		return n == 1
	}
	d.file = path("jackdaw.toml")
	for _, step := range []struct {
		file  []byte
		first bool
	}{
		{ca[0].PEM, true},
		{nil, true}, // no authority: as it was
		{ca[1].PEM, false},
		{[]byte("?"), false},
		{ca[0].PEM, true},
	} {
		if err := os.WriteFile(path("clients.pem"), step.file, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = d.reload() // which may fail
		if served(0) != step.first || served(1) == step.first {
			t.Errorf("with %.40q, a client of the first authority is served: %v", step.file, !step.first)
		}
	}
	clients, err := tlsstore.ReadClients(config.TLS)
	if err != nil {
		t.Fatal(err)
	}
	for service, want := range map[configs.Service]tls.ClientAuthType{configs.Submission: tls.VerifyClientCertIfGiven, configs.LMTP: tls.NoClientCert} {
		if got := d.setup(config, d.router, certs, clients).TLS(configs.Listener{Service: service}).ClientAuth; got != want {
			t.Errorf("clients of %s: %v, want %v", service, got, want)
		}
	}
	if d.certs != certs {
		t.Error("the certificates were read again")
	}
	if err := os.WriteFile(path("clients.pem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := newDaemon(config, inherit.NewSockets()).apply(config); err == nil {
		t.Error("it begins without authorities")
	}
}
