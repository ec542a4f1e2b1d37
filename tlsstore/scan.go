package tlsstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// What a scan takes on, so that a symlink to the wrong place costs neither memory nor the rest of the day.
const (
	maxFile    = 1 << 20 // bytes; a larger file is no certificate
	maxDepth   = 16      // directories below a configured one
	maxEntries = 1 << 20 // of all directories together
)

// scanner finds certificates and keys in the configured files and directories.
type scanner struct {
	roots   []string
	watcher *watcher
	known   map[string]known // what the last scan read, by real path
}

// known is a file that was read, and the state it was in.
type known struct {
	info fs.FileInfo
	// young files are read again: what is written within the tick of the file system's clock leaves no trace in info.
	young bool
	contents
	err error // of parsing
}

// found is a file with something in it, under the path that led there.
type found struct {
	path string
	contents
}

// walk is one scan.
type walk struct {
	*scanner
	seen     map[string]known
	dirs     map[string]bool // by real path
	entries  int
	files    []found
	problems []Problem
}

// scan looks at all files and reads those that have changed since the last scan.
func (s *scanner) scan() ([]found, []Problem) {
	w := &walk{scanner: s, seen: make(map[string]known), dirs: make(map[string]bool)}
	s.watcher.begin()
	for _, root := range s.roots {
		if err := w.link(root, root, 0); err != nil {
			w.problem(root, err)
		}
	}
	s.watcher.end()
	s.known = w.seen
	return w.files, w.problems
}

func (w *walk) problem(path string, err error) {
	// A path error repeats the path, or names the file that a symlink led to, which helps nobody.
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	w.problems = append(w.problems, Problem{File: path, Text: err.Error()})
}

// link visits what path, which may be a symlink, leads to.
func (w *walk) link(path, real string, depth int) error {
	real, err := resolve(real, w.watcher.await)
	if err != nil {
		return err
	}
	info, err := os.Lstat(real)
	if err != nil {
		return err
	}
	return w.visit(path, real, info, depth)
}

// visit takes a file or directory under the path that led there and its real path. Devices, sockets and pipes are
// passed over.
func (w *walk) visit(path, real string, info fs.FileInfo, depth int) error {
	switch {
	case info.IsDir():
		return w.dir(path, real, depth)
	case info.Mode().IsRegular() && info.Size() <= maxFile:
		return w.file(path, real, info)
	}
	return nil
}

// dir searches a directory, which is watched before it is read, so that no change falls between the two.
func (w *walk) dir(path, real string, depth int) error {
	if w.dirs[real] {
		return nil // a symlink has led back here
	}
	w.dirs[real] = true
	if depth > maxDepth {
		return fmt.Errorf("more than %d directories deep", maxDepth)
	}
	w.watcher.enter(real)
	entries, err := os.ReadDir(real)
	if err != nil {
		return err
	}
	if w.entries += len(entries); w.entries > maxEntries {
		return fmt.Errorf("more than %d files", maxEntries)
	}
	for _, e := range entries {
		if err := w.entry(path, real, e, depth+1); err != nil {
			w.problem(filepath.Join(path, e.Name()), err)
		}
	}
	return nil
}

// entry visits one entry of a directory. Hidden ones are passed over: half-written files of rsync and editors, and the
// directories to which Kubernetes' ..data led or will lead; what ..data leads to now is reached by tls.crt and tls.key.
func (w *walk) entry(path, real string, e fs.DirEntry, depth int) error {
	if strings.HasPrefix(e.Name(), ".") {
		return nil
	}
	path, real = filepath.Join(path, e.Name()), filepath.Join(real, e.Name())
	if e.Type()&fs.ModeSymlink != 0 {
		return w.link(path, real, depth)
	}
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed since the directory was read
	}
	if err != nil {
		return err
	}
	return w.visit(path, real, info, depth)
}

// file reads a file, unless it was read in this state. A file that two paths lead to counts once.
func (w *walk) file(path, real string, info fs.FileInfo) error {
	if _, twice := w.seen[real]; twice {
		return nil
	}
	k, ok := w.known[real]
	if !ok || !k.current(info) {
		young := time.Since(info.ModTime()) < 2*time.Second
		data, err := readFile(real)
		if err != nil {
			return err
		}
		c, err := parse(data)
		k = known{info, young, c, err}
	}
	w.seen[real] = k
	if len(k.chains) > 0 || len(k.keys) > 0 {
		w.files = append(w.files, found{path, k.contents})
	}
	return k.err
}

func (k known) current(info fs.FileInfo) bool {
	return !k.young && os.SameFile(k.info, info) && k.info.ModTime().Equal(info.ModTime()) && k.info.Size() == info.Size()
}

// readFile reads no more than maxFile, even if the file has grown since it was looked at.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}
