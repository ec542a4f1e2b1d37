package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"
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

// TestDemo does what the printed lines say: both users log in, by the names and the authority that are printed, and find
// their own folders.
func TestDemo(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var printed output
	ended := make(chan error, 1)
	go func() { ended <- demo(ctx, &printed, "error") }()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(printed.String(), "Ctrl-C"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the demo has not begun; it printed %q", printed.String())
		}
	}
	line := regexp.MustCompile(`curl --cacert (\S+) --resolve (\S+):(\d+):127.0.0.1 --user (\S+):(\S+) imaps:`)
	lines := line.FindAllStringSubmatch(printed.String(), -1)
	if len(lines) != len(demoDomains) {
		t.Fatalf("%d lines for curl, want %d", len(lines), len(demoDomains))
	}
	for i, m := range lines {
		folders := demoFolders(t, m[1], m[2], m[3], m[4], m[5])
		if want := []string{"INBOX", "Sent", demoDomains[i].Folder}; !equalSorted(folders, want) {
			t.Errorf("%s has %q, want %q", m[4], folders, want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the demo ended with %v", err)
	}
	if _, err := os.Stat(lines[0][1]); !os.IsNotExist(err) {
		t.Errorf("the demo left %s behind", lines[0][1])
	}
}

func demoFolders(t *testing.T, caFile, host, port, user, password string) []string {
	t.Helper()
	ca, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client, err := imapclient.DialTLS("127.0.0.1:"+port, &imapclient.Options{TLSConfig: &tls.Config{ServerName: host, RootCAs: pool}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Login(user, password).Wait(); err != nil {
		t.Fatal(err)
	}
	list, err := client.List("", "*", nil).Collect()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, folder := range list {
		names = append(names, folder.Mailbox)
	}
	return names
}

func equalSorted(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}
