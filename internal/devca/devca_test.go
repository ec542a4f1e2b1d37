package devca

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"testing"
	"time"
)

func TestIssue(t *testing.T) {
	ca, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{
		{Names: []string{"mail.example", "*.mail.example", "127.0.0.1"}},
		{Names: []string{"mail.example"}, RSA: true},
		{Names: []string{"mail.example"}, NotAfter: time.Now().AddDate(0, 6, 0)},
	} {
		leaf, err := ca.Issue(o)
		if err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		for _, name := range o.Names {
			verify := x509.VerifyOptions{DNSName: name, Roots: ca.Pool()}
			if name == "*.mail.example" {
				verify.DNSName = "any.mail.example"
			}
			if _, err := leaf.TLS.Leaf.Verify(verify); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestIssueExpired(t *testing.T) {
	ca, err := New()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(Options{Names: []string{"old.example"}, NotAfter: time.Now().AddDate(0, 0, -1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.TLS.Leaf.Verify(x509.VerifyOptions{Roots: ca.Pool()}); err == nil {
		t.Error("an expired certificate was accepted")
	}
	yesterday := x509.VerifyOptions{Roots: ca.Pool(), CurrentTime: time.Now().AddDate(0, 0, -2)}
	if _, err := leaf.TLS.Leaf.Verify(yesterday); err != nil {
		t.Errorf("before it expired: %v", err)
	}
}

func TestWrite(t *testing.T) {
	ca, err := New()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(Options{Names: []string{"mail.example"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := leaf.Write(dir, "mail"); err != nil {
		t.Fatal(err)
	}
	if _, err := tls.LoadX509KeyPair(filepath.Join(dir, "mail.crt"), filepath.Join(dir, "mail.key")); err != nil {
		t.Error(err)
	}
}
