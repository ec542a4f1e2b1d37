// Package whole writes files that are there as a whole or not at all, whoever reads them, and whenever the power fails.
package whole

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// File has a file written beside path, with mode 0600, and put bring it there when it is on the disk: os.Rename, or os.Link, which
// overwrites nothing. The name that it has before is hidden: who reads a directory of such files passes over it.
func File(path string, put func(from, to string) error, write func(io.Writer) error) error {
	if err := file(path, put, write); err != nil {
		return fmt.Errorf("writing %s: %w", path, reason(err))
	}
	return nil
}

func file(path string, put func(from, to string) error, write func(io.Writer) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after a rename it is gone already
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := put(f.Name(), path); err != nil {
		return err
	}
	if d, err := os.Open(dir); err == nil { // the name is to be on the disk, too, where the file system can do that
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}

// reason leaves out the name that a file has until it is complete: it tells nobody anything, and makes one trouble look like many.
func reason(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	if link, ok := errors.AsType[*os.LinkError](err); ok {
		return link.Err
	}
	return err
}
