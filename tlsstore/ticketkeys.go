package tlsstore

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// TicketKeys are those of a file that several frontends share, so that each of them resumes the sessions of all.
type TicketKeys struct {
	file string
	keys [][32]byte // the first encrypts, all decrypt
	mode fs.FileMode
}

// ReadTicketKeys reads a file of keys: a line each, 32 bytes in base64. Empty lines, and lines that begin with "#", are
// passed over. "" stands for no file, which is nil. No error shows a key.
func ReadTicketKeys(file string) (*TicketKeys, error) {
	if file == "" {
		return nil, nil
	}
	k, err := readTicketKeys(file)
	if err != nil {
		return nil, fmt.Errorf("reading ticket_keys: %w; each line is a key as made by: openssl rand -base64 32", err)
	}
	return k, nil
}

func readTicketKeys(file string) (*TicketKeys, error) {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", file) // a pipe would let a reload wait
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	k := &TicketKeys{file: file, mode: info.Mode()}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != 32 {
			return nil, fmt.Errorf("%s:%d: no 32 bytes in base64", file, number)
		}
		k.keys = append(k.keys, [32]byte(key))
	}
	if len(k.keys) == 0 {
		return nil, errors.New(file + ": no key in it")
	}
	return k, nil
}

// Count tells how many keys there are.
func (k *TicketKeys) Count() int { return len(k.keys) }

// Exposed reports whether others than its owner may read or write the file. Who has a key can make tickets for any client,
// with any certificate in it, and read what was said in the sessions of TLS 1.2 to which he finds tickets.
func (k *TicketKeys) Exposed() bool { return k.mode&0o077 != 0 }

// Use goes over to these keys, and to what is in their file later: it is read again every few seconds, and when it cannot
// be, the keys stay, with one warning. nil stands for the keys that are made here. Use and Close must not be called at the
// same time.
func (t *Tickets) Use(k *TicketKeys, log *zap.Logger) {
	t.unfollow()
	t.unfollow = func() {}
	t.mu.Lock()
	if t.shared = k != nil; t.shared {
		t.set(k.keys)
	} else {
		t.turn(time.Now())
	}
	t.mu.Unlock()
	if k == nil {
		return
	}
	k.warn(log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.unfollow = func() {
		cancel()
		<-done
	}
	go func() {
		defer close(done)
		t.follow(ctx, k, log)
	}()
}

// Close ends what Use has begun. The keys stay.
func (t *Tickets) Close() { t.unfollow() }

// follow reads the file whenever the interval has passed. To read so little costs no more than to ask whether it has
// changed, and misses no change within the tick of the file system's clock.
func (t *Tickets) follow(ctx context.Context, k *TicketKeys, log *zap.Logger) {
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		fresh, err := ReadTicketKeys(k.file)
		if err != nil {
			if !failed {
				log.Warn("ticket keys stay as they are", zap.Error(err))
			}
			failed = true
			continue
		}
		failed = false
		if !slices.Equal(fresh.keys, k.keys) {
			t.set(fresh.keys)
			log.Info("ticket keys changed", zap.String("file", fresh.file), zap.Int("keys", fresh.Count()))
		}
		if fresh.mode != k.mode {
			fresh.warn(log)
		}
		k = fresh
	}
}

// warn tells the log of a file that too many may read.
func (k *TicketKeys) warn(log *zap.Logger) {
	if k.Exposed() {
		log.Warn("ticket keys are open to others than their owner; chmod 600 is enough for jackdaw",
			zap.String("file", k.file), zap.Stringer("mode", k.mode))
	}
}
