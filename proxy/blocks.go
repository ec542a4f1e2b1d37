package proxy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"jackdaw/internal/whole"
)

// Block keeps the clients of a network, or a user, out for a time.
type Block struct {
	Network netip.Prefix `json:"network,omitzero"` // without bits behind its length
	User    string       `json:"user,omitempty"`   // canonical
	Since   time.Time    `json:"since,omitzero"`
	Until   time.Time    `json:"until,omitzero"`
}

// same reports whether two blocks are of the same network or user.
func (b Block) same(other Block) bool { return b.Network == other.Network && b.User == other.User }

// at has a block end when it has lasted for its time, measured from now on by the clock that nobody sets, and says when that is by the
// one on the wall. Where that one was ahead when the block was made, and is not any more, the block's time begins now.
func (b Block) at(now time.Time) Block {
	length := b.Until.Sub(b.Since)
	b.Until = now.Add(min(b.Until.Sub(now), length))
	b.Since = b.Until.Add(-length)
	return b
}

// blockedFile is where blocks outlive a restart, in the directory `state`.
const blockedFile = "blocked.json"

// errBlocked is why somebody is refused.
var errBlocked = fmt.Errorf("%w: blocked by the administrator", errPolicy)

// blocks are what keeps clients and users out for a time, beside what the configuration denies. Safe for concurrent use.
type blocks struct {
	log *zap.Logger
	dir string // "": they do not outlive the process; for keepIn alone

	mu       sync.RWMutex
	kept     *whole.Kept
	networks map[netip.Prefix]Block
	users    map[string]Block
	lengths  []int // of networks, for IPv4 and IPv6, each once
}

// network reports whether the clients of an address are kept out.
func (b *blocks) network(client netip.Addr) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, length := range b.lengths {
		network, err := client.Prefix(length) // which fails where an address is shorter
		if block, ok := b.networks[network]; err == nil && ok && time.Now().Before(block.Until) {
			return true
		}
	}
	return false
}

// isBlocked reports whether the session's client is kept out. Whom a proxy did not speak for is nobody's client.
func (s *session) isBlocked() bool {
	return !s.peer.Unproven && s.settings.server.blocks.network(s.peer.Client)
}

// user reports whether a canonical user is kept out.
func (b *blocks) user(name string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	block, ok := b.users[name]
	return ok && time.Now().Before(block.Until)
}

// keepIn goes over to a directory, if there is one, and adds what that has from before. Who has nothing to add changes nothing there: it
// may be another process's yet.
func (b *blocks) keepIn(dir string) {
	if dir == b.dir {
		return
	}
	b.dir = dir
	var (
		kept   *whole.Kept
		before []Block
	)
	if dir != "" {
		kept = whole.Keep(filepath.Join(dir, blockedFile), b.log)
		kept.From(func() any { return b.list() })
	}
	if err := kept.Recall(&before); err != nil {
		b.log.Warn("reading who was blocked in the last run", zap.String("file", blockedFile), zap.Error(err))
	}
	b.close()
	if b.merge(kept, before) {
		kept.Now()
	}
}

// merge adds what a file has to what is known already, which stays, and reports whether there was any of that.
func (b *blocks) merge(kept *whole.Kept, before []Block) (known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept = kept
	all := b.all()
	for _, one := range append(before, all...) {
		b.put(one)
	}
	b.sweep()
	return len(all) > 0
}

// add blocks a network or user, or changes until when.
func (b *blocks) add(all ...Block) {
	defer b.keep()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, one := range all {
		b.put(one)
	}
	b.sweep()
}

// inherit is learn, and keeps what is new.
func (b *blocks) inherit(all []Block) {
	if b.learn(all) {
		b.keep()
	}
}

// learn has these blocks hold, and no others, and reports whether that is new.
func (b *blocks) learn(all []Block) (isNew bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.all()
	b.networks, b.users = nil, nil
	for _, one := range all {
		b.put(one)
	}
	b.sweep()
	return !slices.EqualFunc(before, b.all(), func(x, y Block) bool { return x.same(y) && x.Until.Equal(y.Until) })
}

// put lists a block. b.mu is held.
func (b *blocks) put(one Block) {
	one = one.at(time.Now())
	if b.networks == nil {
		b.networks, b.users = make(map[netip.Prefix]Block), make(map[string]Block)
	}
	if one.Network.IsValid() {
		b.networks[one.Network] = one
	} else {
		b.users[one.User] = one
	}
}

// remove ends a block, and reports whether there was one.
func (b *blocks) remove(one Block) bool {
	defer b.keep()
	b.mu.Lock()
	defer b.mu.Unlock()
	known := slices.ContainsFunc(b.all(), one.same)
	delete(b.networks, one.Network)
	delete(b.users, one.User)
	b.sweep()
	return known
}

// sweep forgets what has passed. b.mu is held.
func (b *blocks) sweep() {
	now := time.Now()
	maps.DeleteFunc(b.networks, func(_ netip.Prefix, one Block) bool { return !now.Before(one.Until) })
	maps.DeleteFunc(b.users, func(_ string, one Block) bool { return !now.Before(one.Until) })
	b.lengths = b.lengths[:0]
	for network := range b.networks {
		b.lengths = append(b.lengths, network.Bits())
	}
	slices.Sort(b.lengths)
	b.lengths = slices.Compact(b.lengths)
}

// keep writes what is to outlive a restart. Nobody who asks for blocks waits for the disk.
func (b *blocks) keep() { b.file().Now() }

// close writes what could not be written yet, for the last time.
func (b *blocks) close() { b.file().Close() }

// file is where they are kept; nil: they do not outlive the process.
func (b *blocks) file() *whole.Kept {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.kept
}

// all lists those that hold, networks first. b.mu is held.
func (b *blocks) all() []Block {
	all := slices.Concat(slices.Collect(maps.Values(b.networks)), slices.Collect(maps.Values(b.users)))
	now := time.Now()
	for i, one := range all {
		all[i] = one.at(now)
	}
	slices.SortFunc(all, func(a, b Block) int {
		return cmp.Or(cmp.Compare(a.User, b.User), a.Network.Compare(b.Network))
	})
	return slices.DeleteFunc(all, func(one Block) bool { return !now.Before(one.Until) })
}

// Block keeps a network or users out until some time, over reloads, and where the configuration has a directory `state` over restarts.
// Their sessions go on.
func (s *Server) Block(all ...Block) { s.blocks.add(all...) }

// HandOverBlocks returns the blocks for a process that takes over, which keeps them from now on.
func (s *Server) HandOverBlocks() []Block {
	s.blocks.file().Leave()
	return s.blocks.list()
}

// InheritBlocks has those blocks hold that did at another process, and no others: what was kept when this one began may have changed
// since.
func (s *Server) InheritBlocks(all []Block) { s.blocks.inherit(all) }

// LearnBlocks is InheritBlocks from a process that has taken over, and keeps them itself.
func (s *Server) LearnBlocks(all []Block) { s.blocks.learn(all) }

// Unblock lets a network or user in again, and reports whether it was blocked.
func (s *Server) Unblock(one Block) bool { return s.blocks.remove(one) }

// Blocked lists what is blocked, networks first.
func (s *Server) Blocked() []Block { return s.blocks.list() }

func (b *blocks) list() []Block {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.all()
}
