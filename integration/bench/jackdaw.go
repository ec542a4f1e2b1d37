package main

import (
	"fmt"
	"os"
)

// jackdawConfig offers all services. Nobody else writes a log, either.
func jackdawConfig(t *trial) ([]string, error) {
	certificates := t.file("certificates")
	if err := os.MkdirAll(certificates, 0o700); err != nil {
		return nil, err
	}
	if err := t.leaf.Write(certificates, "mail"); err != nil {
		return nil, err
	}
	file, err := t.write("jackdaw.toml", fmt.Sprintf(`[listen]
imaps      = %q
imap       = %q
pop3s      = %q
submission = %q
sieve      = %q

[tls]
certificates = [%q]

[[backend]]
name       = "store"
imap       = %q
pop3       = %q
submission = %q
sieve      = %q

[log]
level = "error"

[admin]
socket = %q
`, t.addresses["imaps"], t.addresses["imap"], t.addresses["pop3s"], t.addresses["submission"], t.addresses["sieve"],
		certificates, t.stores["imap"], t.stores["pop3"], t.stores["submission"], t.stores["sieve"], t.file("jackdaw.sock")))
	return []string{"serve", "-c", file}, err
}
