package backends

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"jackdaw/internal/whole"
)

// What outlives a restart lies in a directory, in one file for each kind, which is replaced as a whole.
const (
	drainedFile      = "drained.json"      // the names of backends
	capabilitiesFile = "capabilities.json" // what stores could do, by memoryKey
)

// saveAfter is how long a change of capabilities waits for others, before they are written. What could not be written is tried again
// after that, then after twice the time, and so on up to saveMost.
const (
	saveAfter = 10 * time.Second
	saveMost  = time.Hour
)

// memory is what outlives a restart. A nil *memory keeps nothing. Safe for concurrent use.
type memory struct {
	dir  string
	log  *zap.Logger
	kept map[string]Capabilities // from before

	mu       sync.Mutex
	contents map[string]func() any // what is known now, by file
	changed  map[string]string     // files that are to be written, and why they could not be, as the log knows it
	timer    *time.Timer           // runs if they are to be written later; nil: it does not
}

// openMemory reads what was kept in a directory. Where there is none, and where it was not said, nothing is kept.
func openMemory(dir string, log *zap.Logger) *memory {
	if dir == "" {
		return nil
	}
	m := &memory{dir: dir, log: log, changed: make(map[string]string)}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		log.Warn("no directory for what is to outlive a restart: drained backends, and what stores can do", zap.String("state", dir), zap.Error(err))
		return nil
	}
	m.read(capabilitiesFile, &m.kept)
	return m
}

// read reads a file. One that is not there, or makes no sense, says nothing.
func (m *memory) read(name string, v any) {
	if err := Recall(filepath.Join(m.dir, name), v); err != nil {
		m.log.Warn("reading what was kept from the last run", zap.String("file", name), zap.Error(err))
	}
}

// Recall reads what Keep has written. A file that is not there says nothing.
func Recall(path string, v any) error {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return json.Unmarshal(data, v)
}

// Keep writes JSON to a file, which it replaces when the new one is complete.
func Keep(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return whole.File(path, os.Rename, func(f io.Writer) error {
		_, err := f.Write(append(data, '\n'))
		return err
	})
}

// keepNow writes a file that has changed.
func (m *memory) keepNow(file string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.change(file)
	m.writeFile(file)
	if len(m.changed) > 0 {
		m.writeAfter(saveAfter)
	}
}

// keepLater writes a file that has changed when some time has passed.
func (m *memory) keepLater(file string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.change(file)
	m.writeAfter(saveAfter)
}

// keep writes at once what was to be written later, for the last time.
func (m *memory) keep() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.timer != nil {
		m.timer.Stop()
		m.timer = nil
	}
	m.write()
}

// leave lets another process write a file from now on.
func (m *memory) leave(file string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.changed, file)
}

// change notes that a file is to be written. m.mu is held.
func (m *memory) change(file string) {
	if _, known := m.changed[file]; !known {
		m.changed[file] = ""
	}
}

// write writes what has changed, and reports whether it could. m.mu is held.
func (m *memory) write() (ok bool) {
	for file := range m.changed {
		m.writeFile(file)
	}
	return len(m.changed) == 0
}

// writeFile replaces a file. m.mu is held.
func (m *memory) writeFile(file string) {
	err := Keep(filepath.Join(m.dir, file), m.contents[file]())
	switch {
	case err == nil:
		delete(m.changed, file)
	case err.Error() != m.changed[file]:
		m.log.Warn("keeping what is to outlive a restart", zap.String("file", file), zap.Error(err))
		m.changed[file] = err.Error()
	}
}

// writeAfter is write, as often as it takes, unless that is due already. m.mu is held.
func (m *memory) writeAfter(wait time.Duration) {
	if m.timer != nil {
		return
	}
	m.timer = time.AfterFunc(wait, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.timer == nil {
			return // keep was faster
		}
		m.timer = nil
		if !m.write() {
			m.writeAfter(min(2*wait, saveMost))
		}
	})
}

// memoryKey names a service in the file.
func memoryKey(s *Service) string { return s.Backend + " " + string(s.Protocol) }

// remember takes up what was kept from before, or is still kept by old.
func (r *Router) remember(old *Router) {
	if old != nil && old.memory != nil && old.config.State == r.config.State {
		r.memory = old.memory
	} else if r.memory = openMemory(r.config.State, r.log); r.memory != nil {
		var drained []string
		r.memory.read(drainedFile, &drained)
		for _, name := range drained {
			r.log.Warn("backend is drained since an earlier run", zap.String("backend", name))
			r.doors.of(name).drain(true)
		}
	}
	if r.memory != nil {
		r.memory.mu.Lock()
		r.memory.contents = map[string]func() any{
			drainedFile:      func() any { return r.doors.drained() },
			capabilitiesFile: func() any { return r.abilities() },
		}
		r.memory.mu.Unlock()
	}
	for _, s := range r.services {
		s.recall(r.memory)
	}
}

// abilities returns what stores can do, as far as it is known from now or from before.
func (r *Router) abilities() map[string]Capabilities {
	all := maps.Clone(r.memory.kept)
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
func (s *Service) recall(m *memory) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.memory = m
	if m == nil || s.reached {
		return
	}
	if caps, ok := m.kept[memoryKey(s)]; ok {
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
