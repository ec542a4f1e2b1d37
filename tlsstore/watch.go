package tlsstore

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// watcher tells when files may have changed. It watches directories only, since a watched file that is replaced takes
// its watch along. Each search says anew what it depends on.
type watcher struct {
	tuning   tuning
	log      *zap.Logger
	notifier *fsnotify.Watcher // nil where the system has none to give

	dirs   map[string]bool // that notifier watches
	former map[string]bool // dirs of the search before, less those of this one
	later  map[string]bool // dirs to be watched at the end of the search, if there are watches left
	again  bool            // some of them were not watched while the files in them were read

	began   time.Time
	took    time.Duration // the last search
	err     error         // why this search could not watch everything
	polling bool          // so the search before found
}

// changes are what has happened since the last were taken.
type changes struct {
	paths map[string]bool
	all   bool // anything may have changed
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

// begin starts a search.
func (w *watcher) begin() {
	w.former, w.dirs = w.dirs, make(map[string]bool)
	w.later, w.again = make(map[string]bool), false
	w.began = time.Now()
	if w.notifier != nil {
		w.err = nil
	}
}

// add watches a directory that is about to be read. It asks for a watch even where there is one, because the directory may be
// another one of the same name.
func (w *watcher) add(dir string) {
	if w.notifier == nil || w.dirs[dir] {
		return
	}
	w.dirs[dir] = true
	delete(w.former, dir)
	// A directory that has gone in the meantime, or is closed to us, is the search's business.
	err := w.notifier.Add(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		w.err = err
	}
}

// few is how many directories have a watch for sure.
const few = 1000

// addLater watches a directory for changes of files to which symlinks lead. Programs that renew certificates behind symlinks turn
// these, for which their own directory is watched; so where there are many, these come first.
func (w *watcher) addLater(dir string) {
	if len(w.dirs) < few || w.later == nil { // or no search is under way
		w.add(dir)
	} else {
		w.later[dir] = true
	}
}

// end finishes a search: what it did not depend on is watched no longer.
func (w *watcher) end() {
	for dir := range w.later {
		w.again = w.again || !w.former[dir]
		w.add(dir)
	}
	w.later = nil
	w.took = time.Since(w.began)
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

// interval is how long to wait for changes that nobody tells of: longer where it takes long to look for them.
func (w *watcher) interval() time.Duration {
	interval := w.tuning.rescan
	if w.err != nil || w.again {
		interval = w.tuning.poll
	}
	return max(interval, 20*w.took)
}

// wait returns what has changed when it is quiet again, or longest has passed. woken is as good as a change. It returns false when ctx ends.
func (w *watcher) wait(ctx context.Context, longest time.Duration, woken <-chan struct{}) (changes, bool) {
	var events chan fsnotify.Event
	var failures chan error
	if w.notifier != nil {
		events, failures = w.notifier.Events, w.notifier.Errors
	}
	timer := time.NewTimer(longest)
	defer timer.Stop()
	var deadline time.Time
	seen := changes{paths: make(map[string]bool)}
	for {
		select {
		case <-ctx.Done():
			return changes{}, false
		case <-timer.C:
			return seen, true
		case <-woken:
		case event := <-events:
			seen.paths[event.Name] = true
		case err := <-failures:
			// Events may be lost, of which an overflow is the harmless case.
			seen.all = true
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
