package integration

import (
	"strings"
	"testing"
)

// TestWaysToStore: one store is reached by a socket, by STARTTLS and within TLS, but not under a name that it cannot prove.
func TestWaysToStore(t *testing.T) {
	t.Parallel()
	users := []string{"alice@socket.example", "alice@starttls.example", "alice@implicit.example", "alice@impostor.example"}
	store := startDovecot(t, "store1", passwords, users...)
	jd := startJackdaw(t, expand(`
[[backend]]
name  = "socket"
imap  = "unix:$dir/imap"
sieve = "unix:$dir/sieve"

[[backend]]
name     = "starttls"
imap     = "$host:$imap"
sieve    = "$host:$sieve"
tls      = "starttls"
tls_name = "store.example"
tls_ca   = "$dir/ca.pem"

[[backend]]
name     = "implicit"
imap     = "$host:$imaps"
tls      = "implicit"
tls_name = "store.example"
tls_ca   = "$dir/ca.pem"

[[backend]]
name     = "impostor"
imap     = "$host:$imaps"
tls      = "implicit"
tls_name = "other.example"
tls_ca   = "$dir/ca.pem"

[[route]]
domain = ["socket.example"]
to     = "socket"
[[route]]
domain = ["starttls.example"]
to     = "starttls"
[[route]]
domain = ["implicit.example"]
to     = "implicit"
[[route]]
domain = ["impostor.example"]
to     = "impostor"
`, map[string]string{"dir": store.dir, "host": store.host, "imap": portIMAP, "imaps": portIMAPS, "sieve": portSieve}))

	for _, user := range users[:3] {
		if folders := jd.folders(t, "mail.a.example", user); !strings.Contains(folders, store.folder()) {
			t.Errorf("%s has %q", user, folders)
		}
	}
	for _, user := range users[:2] {
		sieveConnect(t, jd, "mail.a.example", user, "--list")
	}
	if _, status := jd.imap("mail.a.example").command("LOGIN " + users[3] + " " + password); !strings.HasPrefix(status, unavailable) {
		t.Errorf("the impostor's user is told %q", status)
	}
	jd.logged(t, `"backend":"impostor"`, "store cannot be used", "other.example")
}
