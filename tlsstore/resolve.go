package tlsstore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// maxLinks is how many symlinks one path may have, as in Linux.
const maxLinks = 40

// resolve returns path without symlinks. It calls await for every place at which a change would make path lead
// elsewhere: each symlink, the end, and the first part that does not exist, where a removed directory may come back.
func resolve(path string, await func(path string)) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	const root = string(filepath.Separator)
	real, rest := root, strings.TrimPrefix(path, root)
	for links := 0; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, root)
		next := filepath.Join(real, part) // real has no symlinks, so that ".." in a symlink's target means what it says
		info, err := os.Lstat(next)
		if err != nil {
			await(next)
			info, err = os.Lstat(next) // it may have come before it was awaited
		}
		if err != nil {
			return "", err
		}
		if info.Mode()&os.ModeSymlink == 0 {
			real = next
			continue
		}
		await(next)
		if links++; links > maxLinks {
			return "", errors.New("too many symlinks")
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(target) {
			real = root
		}
		rest = target + root + rest
	}
	await(real)
	return real, nil
}
