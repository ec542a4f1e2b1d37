package main

import (
	"cmp"
	"os"
)

// jackdawText offers all services. Nobody else writes a log, either.
const jackdawText = `[listen]
imaps      = "$imaps"
imap       = "$imap"
pop3s      = "$pop3s"
submission = "$submission"
sieve      = "$sieve"

[tls]
certificates = ["$dir/certificates"]

[[backend]]
name       = "store"
imap       = "$store_imap"
pop3       = "$store_pop3"
submission = "$store_submission"
sieve      = "$store_sieve"

[log]
level = "error"

[admin]
socket = "$dir/admin.sock"
`

func jackdawConfig(t *trial) ([]string, error) {
	certificates := t.file("certificates")
	if err := cmp.Or(os.Mkdir(certificates, 0o700), t.leaf.Write(certificates, "mail")); err != nil {
		return nil, err
	}
	return []string{"serve", "-c", t.file("jackdaw.toml")}, t.write("jackdaw.toml", t.fill(jackdawText, nil))
}
