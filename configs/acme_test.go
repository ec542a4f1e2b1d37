package configs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDomains: those that are named, and none that a stranger could make up.
func TestDomains(t *testing.T) {
	got := parse(t, `
		[listen]
		imap = { address = ":143", plaintext_from = "local", realm = "Listener.example" }
		[users]
		realms = { "*.a.example" = "a.example", "mail.{domain}" = "{domain}" }
		default_realm = "default.example"
		[[route]]
		user = ["postmaster@B.example", "info@*.b.example", "admin"]
		domain = ["bücher.example", "*.d.example", "a.example"]
		to = "cyrus"
		[[route]]
		domain = "refused.example"
		refuse = "moved"
		[[backend]]
		name = "cyrus"
		imap = "127.0.0.1:1143"`).Domains()
	want := []string{"a.example", "b.example", "default.example", "listener.example", "xn--bcher-kva.example"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestACMEInPlaceOfFiles: who has certificates ordered needs no files, and the key of an account may come with padding.
func TestACMEInPlaceOfFiles(t *testing.T) {
	got := parse(t, `
		[listen]
		imaps = ":993"
		[acme]
		names = "mail.{domain}"
		http = ":80"
		eab_kid = "kid-1"
		eab_key = "_-8="
		[users]
		default_realm = "example.net"
		[[backend]]
		name = "cyrus"
		imap = "127.0.0.1:143"`)
	mac, err := got.ACME.MAC()
	if err != nil || string(mac) != "\xff\xef" {
		t.Errorf("the key is %x, %v", mac, err)
	}
}
