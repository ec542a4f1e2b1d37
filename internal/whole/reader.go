package whole

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Reader reads a file again when it has changed. The zero value has read nothing. Not for concurrent use.
type Reader struct {
	info  fs.FileInfo // of the file as it was last read; nil: it was not
	young bool        // it may have changed since without a trace
	sum   [sha256.Size]byte
}

// tick is what a file system may take for the same time.
const tick = 2 * time.Second

// Read returns all of a file. If changed is false it says what it said before, and may not have been read. After an error whatever comes
// is a change. Files that are not regular are not read: a pipe would have its reader wait.
func (r *Reader) Read(path string) (data []byte, changed bool, err error) {
	info, err := os.Stat(path) // before it is read: what changes meanwhile is read again
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err == nil && r.knows(info) {
		return nil, false, nil
	}
	if err == nil {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		r.info = nil
		return nil, true, err
	}
	sum := sha256.Sum256(data)
	changed = r.info == nil || sum != r.sum
	r.info, r.young, r.sum = info, time.Since(info.ModTime()) < tick, sum
	return data, changed, nil
}

func (r *Reader) knows(info fs.FileInfo) bool {
	return r.info != nil && !r.young && os.SameFile(info, r.info) && info.ModTime().Equal(r.info.ModTime()) && info.Size() == r.info.Size()
}
