package tlsstore

import (
	"bytes"
	"errors"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
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

	link     bool // the name is a symlink
	searched bool // and leads to a directory, so that there is nothing to read
	state
	*contents
}

// state is what was found when a file was read.
type state struct {
	gone   bool   // nothing is there any more, or the symlink leads nowhere
	young  bool   // it was changed just before it was read
	broken bool   // it could not be read, or something is wrong in it: the registry knows what
	passed pass   // why nothing in it matters
	print  uint64 // of which file it is, as it was when it was read; 0 if it never was
}

// pass is a reason for passing over a file.
type pass uint8

const (
	matters pass = iota
	irregular
	large
	irrelevant
	authoritative
)

func (p pass) String() string {
	return [...]string{
		"it matters",
		"no regular file",
		"larger than 1 MiB",
		"no certificate of a server, and no private key",
		"an authority's certificate",
	}[p]
}

// contents is what a file has of what matters here; nil stands for nothing.
type contents struct {
	leaves []leaf
	keys   []digest // public keys whose private keys are here and have been parsed
	sealed bool     // private keys are here, and have not been parsed
	// users are the pairs that have their key here, or take it for granted that it is among the sealed ones. Some may have left.
	users []*pair
}

// leaf is a server's certificate in a file, and how many certificates of its chain are there, too.
type leaf struct {
	pair  *pair
	depth int
}

// reading is what came of looking at a file.
type reading struct {
	file *file
	state
	problem  string // what is broken
	contents *contents
	fresh    bool // it has an authority's certificate that was not known before
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
	err := s.open(r, func(data []byte) error { return s.sort(r, data) })
	if ours(err) && f.print != 0 {
		return nil
	}
	if r.gone = errors.Is(err, fs.ErrNotExist); err != nil && (!r.gone || f.missed()) {
		r.broken, r.problem = true, bare(err).Error()
	}
	return r
}

// ours reports whether an error is about this process or machine, and says nothing of a file.
func ours(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// missed reports whether somebody wanted there to be a file: a symlink leads to it, or it is a configured place. That of ACME
// comes with the first certificate.
func (f *file) missed() bool { return f.link && !(f.dir.acme && f.dir.real == "") }

// unsealed reads a file with its private keys.
func (s *scanner) unsealed(f *file) (p parsed, err error) {
	err = s.open(&reading{file: f}, func(data []byte) (err error) {
		p, err = s.parser.parse(data, true)
		return err
	})
	return p, err
}

// buffers spare the garbage of a hundred thousand files.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// open notes a file's state, and has its bytes taken, which are not to be kept. A pipe that has taken the file's place must not
// stop us, hence O_NONBLOCK.
func (s *scanner) open(r *reading, take func(data []byte) error) error {
	f, err := os.OpenFile(r.file.real(), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ENXIO) { // a socket
		r.passed = irregular
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	r.young = time.Since(info.ModTime()) < 2*time.Second // what is written within the tick of the file system's clock leaves no trace
	r.print = fingerprint(info)
	switch {
	case !info.Mode().IsRegular():
		r.passed = irregular
		return nil
	case info.Size() > maxFile:
		r.passed = large
		return nil
	}
	buffer := buffers.Get().(*bytes.Buffer)
	defer func() {
		clear(buffer.Bytes()) // a private key need not lie around
		buffer.Reset()
		buffers.Put(buffer)
	}()
	if _, err := buffer.ReadFrom(io.LimitReader(f, maxFile)); err != nil { // it may have grown
		return err
	}
	return take(buffer.Bytes())
}

// sort takes out of a file what the index needs.
func (s *scanner) sort(r *reading, data []byte) error {
	p, err := s.parser.parse(data, s.unseal)
	if err != nil {
		return err
	}
	r.fresh = p.authority
	switch {
	case len(p.chains) > 0 || len(p.keys) > 0 || p.sealed:
		r.contents = &contents{leaves: s.leaves(p.chains), keys: publicKeys(p.keys), sealed: p.sealed}
	case p.authorities:
		r.passed = authoritative
	default:
		r.passed = irrelevant
	}
	return nil
}

func (s *scanner) leaves(chains []chain) []leaf {
	list := make([]leaf, len(chains))
	for i, c := range chains {
		list[i] = leaf{s.parser.pair(c), len(c.der)}
	}
	return list
}

// publicKeys returns the digests of the keys, each once.
func publicKeys(keys []key) (ids []digest) {
	for _, k := range keys {
		if !slices.Contains(ids, k.id) {
			ids = append(ids, k.id)
		}
	}
	return ids
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
	which := struct {
		device, inode  uint64
		modified, size int64
	}{modified: info.ModTime().UnixNano(), size: info.Size()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		which.device, which.inode = uint64(stat.Dev), uint64(stat.Ino)
	}
	return max(maphash.Comparable(seed, which), 1)
}

// bare returns an error without the path, which stands beside it, or is the name of a file that a symlink led to.
func bare(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
