package tlsstore

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// maxFile is how many bytes a file can have that is read; a larger one is no certificate.
const maxFile = 1 << 20

// file is a name in a directory that leads to a regular file, or might. There may be hundreds of thousands of them, so
// that of their contents only what the index needs is kept. The store's mutex guards all fields but dir and name, which
// do not change.
type file struct {
	dir  *dir
	name string

	link     bool   // the name is a symlink
	searched bool   // and leads to a directory, so that there is nothing to read
	gone     bool   // nothing is there any more, or the symlink leads nowhere
	young    bool   // it was changed just before it was read
	print    uint64 // of the state in which it was read; 0 if it never was
	problem  string // why it could not be read, or what is wrong in it
	passed   string // why nothing in it matters; "" where something does
	*contents
}

// contents is what a file has of what matters here; nil stands for nothing.
type contents struct {
	leaves []leaf
	keys   []digest // public keys whose private keys are here and have been parsed
	sealed bool     // private keys are here, and have not been parsed
	// trusting are the pairs that take it for granted that their key is among the sealed ones.
	trusting []*pair
}

// leaf is a server's certificate in a file, and how many certificates of its chain are there, too.
type leaf struct {
	pair  *pair
	depth int
}

// reading is what came of looking at a file.
type reading struct {
	file     *file
	gone     bool
	young    bool
	print    uint64
	problem  string
	passed   string
	contents *contents
	// authority says that an authority's certificate was found which was not known before.
	authority bool
}

// path is the file's name as the operator knows it.
func (f *file) path() string { return filepath.Join(f.dir.path, f.name) }

// real is the file's name in a directory that was reached by symlinks; the name itself may be one.
func (f *file) real() string { return filepath.Join(f.dir.real, f.name) }

func (f *file) has() contents {
	if f.contents == nil {
		return contents{}
	}
	return *f.contents
}

// look reads a file if its state is not the one in which it was read before; nil means that it is. It may run beside other
// looks, but not beside anything that changes files.
func (s *scanner) look(f *file) *reading {
	if f.print != 0 && !f.young {
		if info, err := os.Stat(f.real()); err == nil && fingerprint(info) == f.print {
			return nil
		}
	}
	r := &reading{file: f}
	data, err := s.open(r)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.gone = true
		if f.link {
			r.problem = reason(err)
		}
	case err != nil:
		r.problem = reason(err)
	case r.passed == "":
		s.sort(r, data)
	}
	return r
}

// open reads a file's bytes. A pipe that has taken the file's place must not stop us, hence O_NONBLOCK.
func (s *scanner) open(r *reading) ([]byte, error) {
	f, err := os.OpenFile(r.file.real(), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r.young = time.Since(info.ModTime()) < 2*time.Second // what is written within the tick of the file system's clock leaves no trace
	r.print = fingerprint(info)
	switch {
	case !info.Mode().IsRegular():
		r.passed = "no regular file"
		return nil, nil
	case info.Size() > maxFile:
		r.passed = "larger than 1 MiB"
		return nil, nil
	}
	return io.ReadAll(io.LimitReader(f, maxFile)) // it may have grown
}

// sort takes out of a file what the index needs.
func (s *scanner) sort(r *reading, data []byte) {
	p, err := s.parser.parse(data, s.unseal)
	if err != nil {
		r.problem = err.Error()
		return
	}
	r.authority = p.authority
	if len(p.chains) == 0 && len(p.keys) == 0 && !p.sealed {
		r.passed = "no certificate of a server, and no private key"
		if p.authorities {
			r.passed = "an authority's certificate"
		}
		return
	}
	c := &contents{sealed: p.sealed}
	for _, chain := range p.chains {
		c.leaves = append(c.leaves, leaf{s.parser.pair(chain), len(chain.der)})
	}
	for _, k := range p.keys {
		c.keys = append(c.keys, k.id)
	}
	r.contents = c
}

// same reports whether the two have the same certificates and keys.
func (c *contents) same(d *contents) bool {
	if c == nil || d == nil {
		return c == d
	}
	return c.sealed == d.sealed && slices.Equal(c.keys, d.keys) && slices.EqualFunc(c.leaves, d.leaves,
		func(a, b leaf) bool { return a.pair.id == b.pair.id && a.depth == b.depth })
}

var seed = maphash.MakeSeed()

// fingerprint stands for which file it is, and in what state. It is never 0.
func fingerprint(info fs.FileInfo) uint64 {
	state := struct {
		device, inode  uint64
		modified, size int64
	}{modified: info.ModTime().UnixNano(), size: info.Size()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		state.device, state.inode = uint64(stat.Dev), uint64(stat.Ino)
	}
	return max(maphash.Comparable(seed, state), 1)
}

// reason describes an error without the path, which stands beside it, or is the name of a file that a symlink led to.
func reason(err error) string {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	return fmt.Sprint(err)
}
