package tlsstore

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// watcher tells when files may have changed. It watches directories only, since a watched file that is replaced takes
// its watch along. Each scan says anew what it depends on.
type watcher struct {
	tuning   tuning
	log      *zap.Logger
	notifier *fsnotify.Watcher // nil where the system has none to give

	dirs   map[string]bool // that notifier watches
	former map[string]bool // dirs of the scan before, less those of this scan
	whole  map[string]bool // dirs in which every entry matters
	points map[string]bool // entries of other dirs that matter

	err     error // why this scan could not watch everything
	polling bool  // so the scan before found
}

func newWatcher(t tuning, log *zap.Logger) *watcher {
	notifier, err := t.notifier()
	if err != nil {
		notifier = nil
	}
	return &watcher{tuning: t, log: log, notifier: notifier, err: err}
}

func (w *watcher) close() {
	if w.notifier != nil {
		w.notifier.Close()
	}
}

// begin starts a scan.
func (w *watcher) begin() {
	w.former, w.dirs = w.dirs, make(map[string]bool)
	w.whole, w.points = make(map[string]bool), make(map[string]bool)
	if w.notifier != nil {
		w.err = nil
	}
}

// enter watches a directory that the scan is about to read.
func (w *watcher) enter(dir string) {
	w.whole[dir] = true
	w.add(dir)
}

// await watches for a change of path itself, in the directory where it is or may appear.
func (w *watcher) await(path string) {
	w.points[path] = true
	w.add(filepath.Dir(path))
}

// add asks for a watch even where there is one, because the directory may be another one of the same name.
func (w *watcher) add(dir string) {
	if w.notifier == nil || w.dirs[dir] {
		return
	}
	w.dirs[dir] = true
	delete(w.former, dir)
	// A directory that has gone in the meantime is the scan's business.
	if err := w.notifier.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.err = err
	}
}

// end finishes a scan: what it did not depend on is watched no longer.
func (w *watcher) end() {
	for dir := range w.former {
		w.notifier.Remove(dir) // it fails where the directory is gone, and its watch with it
	}
	w.former = nil
	if w.err != nil && !w.polling {
		w.log.Warn("certificates cannot be watched and are looked at again at intervals",
			zap.Duration("interval", w.tuning.poll), zap.Error(w.err))
	}
	w.polling = w.err != nil
}

// interval is how long to wait for a change before looking whether there was one.
func (w *watcher) interval() time.Duration {
	if w.polling {
		return w.tuning.poll
	}
	return w.tuning.rescan
}

// wait returns true when it is time for a scan: longest has passed, or something has changed and it is quiet again. It
// returns false when ctx ends.
func (w *watcher) wait(ctx context.Context, longest time.Duration) bool {
	var events chan fsnotify.Event
	var failures chan error
	if w.notifier != nil {
		events, failures = w.notifier.Events, w.notifier.Errors
	}
	timer := time.NewTimer(longest)
	defer timer.Stop()
	var deadline time.Time
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case event := <-events:
			if !w.relevant(event) {
				continue
			}
		case err := <-failures:
			// Events may be lost, of which an overflow is the harmless case.
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				w.log.Warn("watching certificates", zap.Error(err))
			}
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(w.tuning.patience)
		}
		timer.Reset(min(w.tuning.quiet, time.Until(deadline)))
	}
}

// relevant passes over the noise of directories in which only one entry matters, such as /etc.
func (w *watcher) relevant(event fsnotify.Event) bool {
	return w.dirs[event.Name] || w.points[event.Name] || w.whole[filepath.Dir(event.Name)]
}
