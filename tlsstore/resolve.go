package tlsstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxLinks is how many symlinks one path may have, as in Linux.
const maxLinks = 40

// resolve follows rest from a directory without symlinks in its path, and returns what is at the end, and its path without
// symlinks. It calls await for every place at which a change would make rest lead elsewhere: each symlink, the end, of which it
// says so, and the first part that does not exist, where a removed directory may come back.
//
// steady is a directory of which the caller's last call has found that there are no symlinks in its path; it spares asking
// again for each of the files in it.
func resolve(from, rest string, steady *string, await func(path string, end bool)) (info fs.FileInfo, real string, err error) {
	const root = string(filepath.Separator)
	real = from
	for links := 0; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, root)
		next := filepath.Join(real, part) // real has no symlinks, so that ".." in a symlink's target means what it says
		if rest != "" && within(*steady, next) {
			real = next
			continue
		}
		if info, err = os.Lstat(next); err != nil {
			await(next, false)
			info, err = os.Lstat(next) // it may have come before it was awaited
		}
		if err != nil {
			return nil, "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			real = next
			continue
		}
		await(next, false)
		if links++; links > maxLinks {
			return nil, "", errors.New("too many symlinks")
		}
		target, err := os.Readlink(next)
		if err != nil {
			return nil, "", err
		}
		if filepath.IsAbs(target) {
			real = root
		}
		rest = target + root + rest
	}
	await(real, true)
	*steady = filepath.Dir(real)
	if info == nil { // there was nothing to follow
		info, err = os.Lstat(real)
	}
	return info, real, err
}

// within reports whether dir is path or lies below it.
func within(dir, path string) bool {
	below, ok := strings.CutPrefix(dir, path)
	return ok && (below == "" || below[0] == filepath.Separator || path == "/")
}
