package directories

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

// verifyCache remembers for a while what a verifier said yes to, by a hash that is of no use without a key that only this process
// has. Whoever has been refused is asked about each time.
type verifyCache struct {
	Directory
	lifetime time.Duration
	key      []byte
	now      func() time.Time

	mu   sync.Mutex
	kept map[[sha256.Size]byte]verified
}

// verified is a yes.
type verified struct {
	answer Answer
	until  time.Time
}

func newVerifyCache(d Directory, lifetime time.Duration) *verifyCache {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // it never fails
	return &verifyCache{Directory: d, lifetime: lifetime, key: key, now: time.Now, kept: make(map[[sha256.Size]byte]verified)}
}

// Lookup verifies a password, from memory if that is young enough. An exchange is new each time.
func (c *verifyCache) Lookup(ctx context.Context, q Query) (Answer, error) {
	if !q.Verify || q.Exchange != nil {
		return c.Directory.Lookup(ctx, q)
	}
	hash := c.hash(q)
	if answer, ok := c.recall(hash); ok {
		return answer, nil
	}
	asked := c.now()
	answer, err := c.Directory.Lookup(ctx, q)
	if err == nil && answer.Verified && answer.Refuse == "" && answer.Password == "" { // no password is kept, of anybody's
		until := asked.Add(c.lifetime)
		if !answer.Until.IsZero() && answer.Until.Before(until) {
			until = answer.Until
		}
		c.keep(hash, verified{answer, until})
	}
	return answer, err
}

// Close forgets everything, and closes the verifier.
func (c *verifyCache) Close() {
	c.Directory.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.kept)
}

func (c *verifyCache) recall(hash [sha256.Size]byte) (Answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.kept[hash]
	if ok && !c.now().Before(v.until) {
		delete(c.kept, hash)
		ok = false
	}
	return v.answer, ok
}

// keep remembers a yes.
func (c *verifyCache) keep(hash [sha256.Size]byte, v verified) {
	c.mu.Lock()
	defer c.mu.Unlock()
	put(c.kept, hash, v)
}

// hash is of everything that a verifier is told and may decide by, but for what is new with each connection: the session's id and
// the client's port.
func (c *verifyCache) hash(q Query) [sha256.Size]byte {
	secured := ""
	if q.TLS != 0 {
		secured = "tls"
	}
	mac := hmac.New(sha256.New, c.key)
	for _, part := range []string{q.User, q.Secret, q.Mechanism, string(q.Service.Protocol()), q.Client.String(), q.Address.String(), q.SNI, secured} {
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part)))) // no part reaches into the next
		mac.Write([]byte(part))
	}
	return [sha256.Size]byte(mac.Sum(nil))
}
