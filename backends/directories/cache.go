package directories

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"jackdaw/configs"
)

// maxKept bounds the answers that a cache keeps.
const maxKept = 1 << 16

// cached remembers what a directory has answered, and asks it nothing twice at once.
type cached struct {
	Directory
	config  configs.Directory
	log     *zap.Logger
	mac     []byte // a key for secrets, so that none is kept
	flights singleflight.Group
	now     func() time.Time

	mu   sync.Mutex
	kept map[string]kept
	down time.Time // since when answers come from memory, and the log knows
}

// kept is an answer, or that the user is not known.
type kept struct {
	answer Answer
	known  bool
	at     time.Time
}

func newCached(d Directory, c configs.Directory, log *zap.Logger) *cached {
	mac := make([]byte, sha256.Size)
	_, _ = rand.Read(mac) // it never fails
	return &cached{Directory: d, config: c, log: log, mac: mac, now: time.Now, kept: make(map[string]kept)}
}

// Lookup answers from memory while an answer holds, and asks otherwise. While the source is down, an answer that was good is good
// for a while more, but for one that lets somebody in.
func (c *cached) Lookup(ctx context.Context, q Query) (Answer, error) {
	key := c.key(q)
	was, ok := c.recall(key)
	if ok && c.holds(was) {
		return was.result()
	}
	answer, err := c.ask(ctx, key, q)
	failed := err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDenied)
	if failed && ok && c.stillGood(was, q) {
		was.answer.Kept, was.answer.Down = was.at, c.fallBack(err)
		return was.answer, nil
	}
	return answer, err
}

// ask asks the directory once for all who want to know the same at the same time, and keeps what it says. The question goes on
// when the first of them has left.
func (c *cached) ask(ctx context.Context, key string, q Query) (Answer, error) {
	flight := c.flights.DoChan(key, func() (any, error) {
		if was, ok := c.recall(key); ok && c.holds(was) { // another has asked just before
			return was.result()
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.config.Timeout)
		defer cancel()
		answer, err := c.Directory.Lookup(ctx, q)
		switch {
		case err == nil:
			c.note(key, kept{answer, true, c.now()})
		case errors.Is(err, ErrNotFound):
			c.note(key, kept{known: false, at: c.now()})
		case errors.Is(err, ErrDenied):
			c.back()
		}
		return answer, err
	})
	select {
	case result := <-flight:
		answer, _ := result.Val.(Answer)
		return answer, result.Err
	case <-ctx.Done():
		return Answer{}, context.Cause(ctx)
	}
}

func (c *cached) recall(key string) (kept, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.kept[key]
	return k, ok
}

// holds reports whether an answer need not be asked for again.
func (c *cached) holds(k kept) bool {
	age := c.now().Sub(k.at)
	if k.known {
		return age < c.config.Cache
	}
	return age < c.config.CacheMissing
}

// stillGood reports whether an answer may stand in for a source that is down.
func (c *cached) stillGood(k kept, q Query) bool {
	return k.known && !q.Verify && !q.Stored && !k.answer.Verified && c.now().Sub(k.at) < c.config.Stale
}

func (k kept) result() (Answer, error) {
	k.answer.Kept = k.at
	if !k.known {
		return k.answer, ErrNotFound
	}
	return k.answer, nil
}

// note keeps an answer, unless there is a password in it: none is kept, of anybody's.
func (c *cached) note(key string, k kept) {
	c.back()
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.answer.Password != "" || k.answer.Stored != "" {
		delete(c.kept, key)
		return
	}
	put(c.kept, key, k)
}

// put keeps something, in the place of something else if there is too much.
func put[K comparable, V any](all map[K]V, key K, value V) {
	if _, known := all[key]; !known && len(all) >= maxKept {
		for other := range all { // any: a map begins anywhere
			delete(all, other)
			break
		}
	}
	all[key] = value
}

// fallBack says once that the source is down, and since when that is known; back says that it is up again.
func (c *cached) fallBack(err error) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down.IsZero() {
		c.down = c.now()
		c.log.Warn("directory cannot be asked; users are placed as it said last", zap.Duration("for", c.config.Stale), zap.Error(err))
	}
	return c.down
}

func (c *cached) back() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.down.IsZero() {
		c.log.Info("directory answers again")
	}
	c.down = time.Time{}
}

// key has everything that an answer depends on. A source that is told everything may make everything count.
func (c *cached) key(q Query) string {
	all := c.config.Kind == configs.DirectoryHTTP
	asked := string(c.config.Query + c.config.Filter)
	parts := []string{q.User, q.Domain, string(q.Service)}
	if all || strings.Contains(asked, ":sni") {
		parts = append(parts, "sni", q.SNI)
	}
	if all || strings.Contains(asked, ":client") {
		parts = append(parts, "client", q.Client.String())
	}
	if all {
		parts = append(parts, "mechanism", q.Mechanism, q.Listener, q.Address.String(), strconv.Itoa(int(q.TLS)))
	}
	if q.Stored {
		parts = append(parts, "stored")
	}
	if q.Verify || all {
		mac := hmac.New(sha256.New, c.mac)
		mac.Write([]byte(q.Secret))
		parts = append(parts, "secret", string(mac.Sum(nil)))
	}
	return strings.Join(parts, "\x00")
}
