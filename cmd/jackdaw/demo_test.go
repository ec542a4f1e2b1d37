package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"jackdaw/configs"
)

// output is what a command has printed so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// demoRun is a demo that runs, and what its guide has said of it.
type demoRun struct {
	t       *testing.T
	guide   string
	dir     string
	address map[configs.Service]string
	roots   *x509.CertPool
}

func startDemo(t *testing.T) *demoRun {
	t.Helper()
	for service := range demoPorts {
		demoPorts[service] = 0 // any: other tests may run on this machine
	}
	ctx, cancel := context.WithCancel(context.Background())
	var printed output
	ended := make(chan error, 1)
	go func() { ended <- demo(ctx, &printed, "error") }()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(printed.String(), "Ctrl-C"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the demo has not begun; it printed %q", printed.String())
		}
	}
	d := &demoRun{t: t, guide: printed.String(), address: make(map[configs.Service]string), roots: x509.NewCertPool()}
	d.dir = filepath.Dir(regexp.MustCompile(`/\S+/jackdaw.toml`).FindString(d.guide))
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the demo ended with %v", err)
		}
		if _, err := os.Stat(d.dir); !os.IsNotExist(err) {
			t.Errorf("the demo left %s behind", d.dir)
		}
	})
	config, err := configs.Load(filepath.Join(d.dir, "jackdaw.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range config.Listen.Listeners {
		d.address[l.Service] = l.Address.Address
	}
	ca, err := os.ReadFile(filepath.Join(d.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	d.roots.AppendCertsFromPEM(ca)
	return d
}

func (d *demoRun) tls(domain demoDomain) *tls.Config {
	return &tls.Config{ServerName: domain.Host, RootCAs: d.roots}
}

// TestDemo uses the demo as its guide invites to.
func TestDemo(t *testing.T) {
	d := startDemo(t)
	for _, s := range configs.Services() {
		if d.address[s] == "" {
			t.Errorf("%s is not served", s)
		}
	}
	t.Run("guide", d.testGuide)
	t.Run("probe", d.testProbe)
	t.Run("mail", d.testMail)
	t.Run("refusals", d.testRefusals)
	t.Run("orders", d.testOrders)
}

// testOrders: the demo's file may be changed and read again, and an upgrade is refused.
func (d *demoRun) testOrders(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	socket := filepath.Join(d.dir, "admin.sock")
	if _, err := askDaemonTo(ctx, socket, "/reload"); err != nil {
		t.Errorf("reload: %v", err)
	}
	if _, err := askDaemonTo(ctx, socket, "/upgrade"); err == nil || !strings.Contains(err.Error(), "a demo cannot be upgraded") {
		t.Errorf("upgrade: %v", err)
	}
}

// testGuide pastes the lines of the guide, as they stand there, into a shell.
func (d *demoRun) testGuide(t *testing.T) {
	for _, tool := range []string{"sh", "curl", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	want := []string{ // parts of what the lines print
		"Verification: OK", "Verification: OK", "Verification: OK", "Verification: OK", "Verification: OK",
		demoDomains[0].Host + ".*\n" + demoDomains[1].Host, "alice@a.example is let in", "",
		"<alice@a.example>.*\n.*<bob@b.example>", demoDomains[1].Folder, "Subject: Hello", "Subject: Hello",
	}
	lines := regexp.MustCompile(`(?m)^  (.*)$`).FindAllStringSubmatch(d.guide, -1)
	if len(lines) != len(want) {
		t.Fatalf("the guide has %d lines, want %d:\n%s", len(lines), len(want), d.guide)
	}
	for i, line := range lines {
		script := strings.ReplaceAll(line[1], os.Args[0], "jackdaw")
		got, err := exec.CommandContext(t.Context(), "sh", "-c", script).CombinedOutput()
		if found, _ := regexp.Match(want[i], got); err != nil || !found {
			t.Errorf("%s\nended with %v and printed no %q, but\n%s", script, err, want[i], got)
		}
	}
}

// testProbe lets every user in by every service, under the certificate of the server's name.
func (d *demoRun) testProbe(t *testing.T) {
	for _, domain := range demoDomains {
		password := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(password, []byte(domain.Password), 0o600); err != nil {
			t.Fatal(err)
		}
		for service, address := range d.address {
			secure := service != configs.LMTP // which has no TLS unless it is told to
			args := []string{"probe", address, "--service", string(service), "--sni", domain.Host, "--ca", filepath.Join(d.dir, "ca.pem")}
			if secure {
				args = append(args, "--user", domain.Local, "--password-file", password)
			}
			var out strings.Builder
			if status := run(args, &out, &out); status != exitGood || strings.Contains(out.String(), "verified      yes") != secure {
				t.Errorf("%s for %s: exit status %d, and\n%s", service, domain.Host, status, out.String())
			}
		}
	}
}
