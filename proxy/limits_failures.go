package proxy

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"jackdaw/configs"
)

// failures are the failed logins of clients, so that nobody can try passwords for long. They count against the client from which
// they come, and never against the user whose name was said: a stranger could lock him out. What failed once fails again, so that a
// device with an old password does not lock out all others behind its address: the same password is no new failure. Safe for
// concurrent use.
type failures struct {
	mu      sync.Mutex
	secret  []byte
	clients recent[subnet, time.Time] // by when all of a client's failures are forgiven
	said    recent[[16]byte, struct{}]
	longest time.Duration // the longest time that a rate has been for
}

// rememberWrong is for how long at least a wrong password is known again.
const rememberWrong = time.Hour

func newFailures() failures {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // which never fails
	return failures{secret: secret}
}

// failed counts a failure, and returns how many there have been of late, and whether these are too many: then the client is barred
// for as long as the rate is for. Each failure is forgiven after its part of that time.
func (f *failures) failed(client subnet, a *Attempt, rate configs.Rate, now time.Time) (recent int, tooMany bool) {
	each := rate.Per / time.Duration(rate.Count)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.longest = max(f.longest, rate.Per)
	forgiven, _ := f.clients.get(client)
	if forgiven.Before(now) {
		forgiven = now
	}
	if f.isNew(client, a, now) {
		forgiven = forgiven.Add(each)
	}
	if tooMany = forgiven.Sub(now) > rate.Per; tooMany {
		forgiven = now.Add(2 * rate.Per)
	}
	f.clients.put(client, forgiven, now, 2*f.longest)
	return int((forgiven.Sub(now) + each - 1) / each), tooMany
}

// isNew tells whether a client has said something else before. Of an exchange nobody can tell. f.mu is held.
func (f *failures) isNew(client subnet, a *Attempt, now time.Time) bool {
	if a.Secret == "" {
		return true
	}
	mac := hmac.New(sha256.New, f.secret)
	_ = binary.Write(mac, binary.BigEndian, client)
	_, _ = mac.Write([]byte(a.User + "\x00" + a.Authzid + "\x00" + a.Secret))
	key := [16]byte(mac.Sum(nil))
	f.said.age(now, rememberWrong)
	_, known := f.said.get(key)
	f.said.put(key, struct{}{}, now, rememberWrong)
	return !known
}

// barred tells whether a client is turned away.
func (f *failures) barred(client subnet, rate configs.Rate, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	forgiven, _ := f.clients.get(client)
	return rate.Count > 0 && forgiven.Sub(now) > rate.Per
}

// count returns how many clients are turned away.
func (f *failures) count(rate configs.Rate, now time.Time) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, forgiven := range f.clients.all() {
		if rate.Count > 0 && forgiven.Sub(now) > rate.Per {
			n++
		}
	}
	return n
}
