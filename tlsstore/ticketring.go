package tlsstore

import (
	"crypto/rand"
	"crypto/tls"
	"slices"
	"time"
)

// OwnKey is a key of session tickets that was made here. It lives in memory alone, of this process and of the one that takes over:
// who has it can read what was said in the sessions of TLS 1.2 to which he finds tickets.
type OwnKey struct {
	Key  [32]byte
	Made time.Time
}

// A key encrypts for a day, and decrypts for a week, which is as long as RFC 8446 section 4.6.1 lets a ticket live.
const (
	keyEncrypts = 24 * time.Hour
	keyDecrypts = 7 * 24 * time.Hour
)

// OwnKeys are those that were made here, for the process that takes over; the newest is the first.
func (t *Tickets) OwnKeys() []OwnKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	return aged(t.own, time.Now())
}

// Inherit goes on with the keys of another process, which clients have tickets from.
func (t *Tickets) Inherit(keys []OwnKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.own = aged(keys, now)
	t.turn(now)
}

// aged says when keys were made by the clock on the wall as it is set now. Age is measured by the other clock, which tells a key from
// its future nothing: that is a new one.
func aged(keys []OwnKey, now time.Time) []OwnKey {
	all := slices.Clone(keys)
	for i, k := range all {
		all[i].Made = now.Add(-max(0, now.Sub(k.Made)))
	}
	return all
}

// turn takes a new key if the newest has encrypted for long enough, and forgets those that have decrypted for long enough. mu is
// held.
func (t *Tickets) turn(now time.Time) {
	if len(t.own) == 0 || !now.Before(t.own[0].Made.Add(keyEncrypts)) {
		fresh := OwnKey{Made: now}
		_, _ = rand.Read(fresh.Key[:]) // never fails
		t.own = append([]OwnKey{fresh}, t.own...)
	}
	var keys [][32]byte
	for i, k := range t.own {
		if i > 0 && !now.Before(k.Made.Add(keyDecrypts)) {
			t.own = t.own[:i]
			break
		}
		keys = append(keys, k.Key)
	}
	due := t.own[0].Made.Add(keyEncrypts)
	t.due.Store(&due)
	if !t.shared {
		t.set(keys)
	}
}

// set makes the keys those of all sessions to come: the first encrypts, all decrypt. With keys that are set, crypto/tls makes
// none of its own.
func (t *Tickets) set(keys [][32]byte) {
	config := new(tls.Config)
	config.SetSessionTicketKeys(keys)
	t.used.Store(config)
}

// current has the keys that are used now.
func (t *Tickets) current() *tls.Config {
	if now := time.Now(); !now.Before(*t.due.Load()) {
		t.mu.Lock()
		t.turn(now)
		t.mu.Unlock()
	}
	return t.used.Load()
}
