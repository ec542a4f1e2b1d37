package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"jackdaw/integration/measure"
)

// startJackdaw starts jackdaw with a set of certificates. It serves imaps, submission and sieve. Its IMAP store is at the
// address store; where that is "", nobody gets as far as to it.
func (b *bench) startJackdaw(s *set, store string) (*measure.Server, error) {
	addresses, err := measure.FreeAddresses("imaps", "submission", "sieve", "nowhere")
	if err != nil {
		return nil, err
	}
	if store == "" {
		store = addresses["nowhere"]
	}
	config := fmt.Sprintf(`[listen]
imaps      = %q
submission = %q
sieve      = %q

[tls]
certificates = [%q]

[[backend]]
name       = "store"
imap       = %q
submission = %q
sieve      = %[6]q

[limits]
sessions_per_user = 0 # all are one user's

[log]
level = "error" # HAProxy logs nothing, either

[admin]
socket = %[7]q
`, addresses["imaps"], addresses["submission"], addresses["sieve"], s.served(), store, addresses["nowhere"],
		filepath.Join(b.temp, "jackdaw.sock"))
	file := filepath.Join(b.temp, "jackdaw.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return measure.Start(b.ctx, b.temp, "jackdaw", addresses, b.jackdaw, "serve", "-c", file)
}

// notice has jackdaw find two renewals by itself: one for the time that it takes, and one for its cost, with few questions,
// because answering them costs the server, too.
func (t *trial) notice() error {
	r, err := t.renew()
	if err != nil {
		return err
	}
	if err = t.put(r); err != nil {
		return err
	}
	began := time.Now()
	if err = t.shown("imaps", r, often); err != nil {
		return err
	}
	t.figures[renewTime] = time.Since(began).Seconds()

	if r, err = t.renew(); err != nil {
		return err
	}
	before, err := measure.CPU(t.server.PID())
	if err != nil {
		return err
	}
	if err = t.put(r); err != nil {
		return err
	}
	if err = t.shown("imaps", r, seldom); err != nil {
		return err
	}
	after, _, err := measure.Rest(t.ctx, t.server.PID())
	if err != nil {
		return err
	}
	t.figures[renewCPU] = (after - before).Seconds()
	m, err := measure.MemoryOf(t.server.PID())
	t.figures[renewPeak] = megabytes(m.Peak)
	return err
}
