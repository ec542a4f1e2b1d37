package whole

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
)

// keepAfter is how long a change waits for others before it is written. What could not be written is tried again after that, then after
// twice the time, and so on up to keepMost.
const (
	keepAfter = 10 * time.Second
	keepMost  = time.Hour
)

// Kept is a file of JSON in which something outlives the process. What could not be written, because the disk was full perhaps, is
// written as soon as it can be. A nil *Kept keeps nothing. Safe for concurrent use.
type Kept struct {
	path string
	log  *zap.Logger

	mu      sync.Mutex
	content func() any
	changed bool
	said    string      // why it could not be written, as the log has it
	timer   *time.Timer // runs if it is to be written later; nil: it does not
}

// Keep returns the file at path. The log tells why it cannot be written, once for each reason.
func Keep(path string, log *zap.Logger) *Kept { return &Kept{path: path, log: log} }

// Recall reads what was kept in an earlier run. A file that is not there says nothing.
func (k *Kept) Recall(v any) error {
	if k == nil {
		return nil
	}
	data, err := os.ReadFile(k.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return json.Unmarshal(data, v)
}

// From says what is to be kept. content is called when the file is written.
func (k *Kept) From(content func() any) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.content = content
}

// Now keeps what has changed at once.
func (k *Kept) Now() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changed = true
	if !k.write() {
		k.after(keepAfter)
	}
}

// Later keeps what has changed when some time has passed.
func (k *Kept) Later() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changed = true
	k.after(keepAfter)
}

// Close keeps at once what has changed, for the last time.
func (k *Kept) Close() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stop()
	k.write()
}

// Leave leaves the file to another process, whatever has changed.
func (k *Kept) Leave() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stop()
	k.changed = false
}

// write reports whether there is nothing to be written any more. k.mu is held.
func (k *Kept) write() (done bool) {
	if !k.changed {
		return true
	}
	data, err := json.MarshalIndent(k.content(), "", "\t")
	if err == nil {
		err = File(k.path, os.Rename, func(f io.Writer) error {
			_, err := f.Write(append(data, '\n'))
			return err
		})
	}
	switch {
	case err == nil:
		k.changed, k.said = false, ""
	case err.Error() != k.said:
		k.said = err.Error()
		k.log.Warn("keeping what is to outlive a restart", zap.String("file", filepath.Base(k.path)), zap.Error(err))
	}
	return err == nil
}

// after is write, as often as it takes, unless that is due already. k.mu is held.
func (k *Kept) after(wait time.Duration) {
	if k.timer != nil {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.timer != timer {
			return // stop was faster
		}
		k.timer = nil
		if !k.write() {
			k.after(min(2*wait, keepMost))
		}
	})
	k.timer = timer
}

// stop has nothing written later. k.mu is held.
func (k *Kept) stop() {
	if k.timer != nil {
		k.timer.Stop()
		k.timer = nil
	}
}
