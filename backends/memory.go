package backends

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"

	"jackdaw/internal/whole"
)

// What outlives a restart lies in a directory, in one file for each kind, which is replaced as a whole.
const (
	drainedFile      = "drained.json"      // the names of backends
	capabilitiesFile = "capabilities.json" // what stores could do, by memoryKey
)

// memory is what outlives a restart. The zero value keeps nothing. Safe for concurrent use.
type memory struct {
	drained, capabilities *whole.Kept
	known                 map[string]Capabilities // from before
}

// openMemory reads what was kept in a directory. Where there is none, and where it was not said, nothing is kept.
func openMemory(dir string, log *zap.Logger) memory {
	if dir == "" {
		return memory{}
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		log.Warn("no directory for what is to outlive a restart: drained backends, and what stores can do", zap.String("state", dir), zap.Error(err))
		return memory{}
	}
	m := memory{drained: whole.Keep(filepath.Join(dir, drainedFile), log), capabilities: whole.Keep(filepath.Join(dir, capabilitiesFile), log)}
	read(m.capabilities, capabilitiesFile, &m.known, log)
	return m
}

// read reads what was kept from the last run, unless it makes no sense.
func read(from *whole.Kept, name string, v any, log *zap.Logger) {
	if err := from.Recall(v); err != nil {
		log.Warn("reading what was kept from the last run", zap.String("file", name), zap.Error(err))
	}
}

// keep writes at once what was to be written later, for the last time.
func (m memory) keep() {
	m.drained.Close()
	m.capabilities.Close()
}

// memoryKey names a service in the file.
func memoryKey(s *Service) string { return s.Backend + " " + string(s.Protocol) }

// remember takes up what was kept from before, or is still kept by old.
func (r *Router) remember(old *Router) {
	if old != nil && old.memory.drained != nil && old.config.State == r.config.State {
		r.memory = old.memory
	} else {
		r.memory = openMemory(r.config.State, r.log)
		var drained []string
		read(r.memory.drained, drainedFile, &drained, r.log)
		for _, name := range drained {
			r.log.Warn("backend is drained since an earlier run", zap.String("backend", name))
			r.doors.of(name).drain(true)
		}
	}
	r.memory.drained.From(func() any { return r.doors.drained() })
	r.memory.capabilities.From(func() any { return r.abilities() })
	for _, s := range r.services {
		s.recall(r.memory)
	}
}

// abilities returns what stores can do, as far as it is known from now or from before.
func (r *Router) abilities() map[string]Capabilities {
	all := maps.Clone(r.memory.known)
	if all == nil {
		all = make(map[string]Capabilities)
	}
	maps.DeleteFunc(all, func(key string, _ Capabilities) bool {
		backend, _, _ := strings.Cut(key, " ")
		_, ok := r.config.Backend(backend)
		return !ok
	})
	for _, s := range r.Services() {
		if caps, known := s.Capabilities(); known {
			all[memoryKey(s)] = caps
		}
	}
	return all
}

// recall lets a service tell from now on what it learns, and know until then what was known before.
func (s *Service) recall(m memory) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.memory = m
	if s.reached {
		return
	}
	if caps, ok := m.known[memoryKey(s)]; ok {
		s.caps, s.reached, s.recalled = caps, true, true
	}
}

// drained lists the backends that are drained, by name.
func (d *doors) drained() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := []string{}
	for name, door := range d.all {
		door.mu.Lock()
		if door.drained {
			names = append(names, name)
		}
		door.mu.Unlock()
	}
	slices.Sort(names)
	return names
}
