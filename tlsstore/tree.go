package tlsstore

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What a search takes on, so that a symlink to the wrong place costs neither memory nor the rest of the day.
const (
	maxDepth   = 16      // directories below a configured one
	maxEntries = 4 << 20 // of all directories together
)

// tree is what is known of the places where certificates are looked for: which directories, and which files in them. A search
// goes through all of it; after a change of which the watcher knows the name, visit looks only there.
type tree struct {
	top     *dir            // whose files are the configured places
	dirs    map[string]*dir // that have been searched, by real path
	watcher *watcher

	// through maps each directory through which a symlink leads to the directories that have such symlinks.
	through map[string][]*dir

	// ghosts are files that are gone and may come back to what is kept of them, by path.
	ghosts map[string]*file
	// byPath has the directories by the path that leads there. It is made when it is asked for.
	byPath map[string]*dir

	searches int // so far
	walk
}

// walk is what one search or visit has come to.
type walk struct {
	found   func(*file) // takes the files that are to be looked at
	lost    []*file     // that were there before
	entered []*dir      // that were searched
	entries int
	steady  string // of resolve
}

// dir is a directory.
type dir struct {
	path, real string
	acme       bool    // the certificates in it come from an ACME authority, and give way to others
	files      []*file // sorted by name
	problem    string  // why it could not be searched
	search     int     // the last that came here
}

// newTree begins with the configured places; those of ACME are among them.
func newTree(places []string, acme string, w *watcher) *tree {
	t := &tree{top: &dir{}, dirs: make(map[string]*dir), ghosts: make(map[string]*file), watcher: w}
	for _, place := range places {
		t.top.files = append(t.top.files, &file{dir: t.top, name: place, link: true})
	}
	if acme != "" {
		issued := &dir{acme: true}
		t.top.files = append(t.top.files, &file{dir: issued, name: acme, link: true})
	}
	return t
}

// search goes through all directories. It hands every file to found, and returns those that are there no longer.
func (t *tree) search(found func(*file)) (lost []*file) {
	t.walk, t.byPath = walk{found: found}, nil
	t.through = make(map[string][]*dir)
	t.searches++
	t.watcher.begin()
	for _, place := range t.top.files {
		t.follow(place, 0)
		if !place.searched {
			t.found(place)
		}
	}
	t.watcher.end()
	for real, d := range t.dirs {
		if d.search != t.searches {
			delete(t.dirs, real)
			t.lose(d.files...)
		}
	}
	return t.lost
}

// visit looks only at what a change of path can mean. It returns false where it takes a search to know that.
func (t *tree) visit(path string, found func(*file)) (lost []*file, ok bool) {
	t.walk, t.byPath = walk{found: found}, nil
	if t.dirs[path] != nil || t.through[path] != nil {
		return nil, false // a directory itself
	}
	parent, name := filepath.Split(path)
	parent = filepath.Clean(parent)
	if d := t.dirs[parent]; d != nil && !hidden(name) && !t.entry(d, name) {
		return nil, false
	}
	for _, d := range t.through[parent] {
		for _, f := range d.files {
			if f.link && !t.again(f) {
				return nil, false
			}
		}
	}
	return t.lost, true
}

// entry looks at one name in a directory. It returns false where a directory has come into the place of a file, or the
// like.
func (t *tree) entry(d *dir, name string) bool {
	i, known := slices.BinarySearchFunc(d.files, name, byName)
	info, err := os.Lstat(filepath.Join(d.real, name))
	switch {
	case errors.Is(err, fs.ErrNotExist) && !known:
		return true
	case errors.Is(err, fs.ErrNotExist):
		f := d.files[i]
		d.files = slices.Delete(d.files, i, i+1)
		t.lose(f)
		return !f.searched
	case err != nil, known && info.IsDir():
		return false
	case info.IsDir():
		t.enter(filepath.Join(d.path, name), filepath.Join(d.real, name), d.acme, 1)
		return true
	}
	if !known {
		d.files = slices.Insert(d.files, i, t.recall(d, name))
	}
	f := d.files[i]
	link := info.Mode()&fs.ModeSymlink != 0
	if f.link = link; link {
		return t.again(f)
	}
	t.found(f)
	return true
}

// again follows a symlink that may lead elsewhere than before.
func (t *tree) again(f *file) bool {
	if f.searched {
		return !t.moved(f)
	}
	info, _, err := t.resolve(f)
	if err == nil && info.IsDir() {
		return false
	}
	t.found(f)
	return true
}

// moved reports whether a symlink to a directory leads to another one now.
func (t *tree) moved(f *file) bool {
	info, real, err := t.resolve(f)
	return err != nil || !info.IsDir() || t.dirs[real] == nil
}

// follow looks where a symlink, or a configured place, leads, and searches it if that is a directory.
func (t *tree) follow(f *file, depth int) {
	info, real, err := t.resolve(f)
	f.searched = err == nil && info.IsDir()
	if f.searched {
		t.lost = append(t.lost, f) // the file that was here before
		t.enter(f.path(), real, f.dir.acme, depth)
	}
}

// enter searches a directory, which is watched before it is read, so that no change falls between the two.
func (t *tree) enter(path, real string, acme bool, depth int) {
	d := t.dirs[real]
	if d == nil {
		d = &dir{path: path, real: real, acme: acme}
		if path == real {
			d.path = d.real // one string in memory is enough
		}
		t.dirs[real] = d
	} else if d.search == t.searches {
		return // a symlink has led back here
	}
	d.search = t.searches
	t.entered = append(t.entered, d)
	d.problem = ""
	if depth > maxDepth {
		d.problem = fmt.Sprintf("more than %d directories deep", maxDepth)
		return
	}
	t.watcher.add(real)
	entries, err := os.ReadDir(real)
	if err != nil {
		d.problem = bare(err).Error()
		return
	}
	if t.entries += len(entries); t.entries > maxEntries {
		d.problem = fmt.Sprintf("more than %d files", maxEntries)
		return
	}
	t.merge(d, entries, depth)
}

// merge goes through a directory's entries, which are sorted by name as its files are. Hidden ones are passed over:
// half-written files of rsync and editors, and the directories to which Kubernetes' ..data led or will lead; what ..data leads
// to now is reached by tls.crt and tls.key.
func (t *tree) merge(d *dir, entries []fs.DirEntry, depth int) {
	former := d.files
	d.files = make([]*file, 0, len(entries))
	for _, e := range entries {
		name := e.Name()
		for len(former) > 0 && former[0].name < name {
			t.lose(former[0])
			former = former[1:]
		}
		if hidden(name) {
			continue
		}
		if e.IsDir() {
			t.enter(filepath.Join(d.path, name), filepath.Join(d.real, name), d.acme, depth+1)
			continue
		}
		var f *file
		if len(former) > 0 && former[0].name == name {
			f, former = former[0], former[1:]
		} else {
			f = t.recall(d, name)
		}
		d.files = append(d.files, f)
		f.searched = false
		if f.link = e.Type()&fs.ModeSymlink != 0; f.link {
			t.follow(f, depth+1)
		}
		if !f.searched {
			t.found(f)
		}
	}
	t.lose(former...)
	d.files = slices.Clip(d.files)
}

// recall returns the file that was there before, or a new one.
func (t *tree) recall(d *dir, name string) *file {
	if len(t.ghosts) > 0 {
		path := filepath.Join(d.path, name)
		if f := t.ghosts[path]; f != nil {
			delete(t.ghosts, path)
			f.dir = d
			return f
		}
	}
	return &file{dir: d, name: intern(name)}
}

// lose takes note of files that are gone.
func (t *tree) lose(files ...*file) {
	for _, f := range files {
		if !f.searched {
			t.lost = append(t.lost, f)
		}
	}
}

// resolve finds what a symlink leads to, and has every directory watched whose entries decide about that. The symlink
// itself is an entry of a directory that is watched already, unless it is a configured place.
func (t *tree) resolve(f *file) (info fs.FileInfo, real string, err error) {
	place := f.dir.real == ""
	from, rest := f.dir.real, f.name
	if place {
		abs, err := filepath.Abs(f.name)
		if err != nil {
			return nil, "", err
		}
		from, rest = "/", strings.TrimPrefix(abs, "/")
	}
	own := !place
	return resolve(from, rest, &t.steady, func(path string, end bool) {
		if own {
			own = false
			return
		}
		parent := filepath.Dir(path)
		if end {
			t.watcher.addLater(parent)
		} else {
			t.watcher.add(parent)
		}
		dependent := f.dir
		if place {
			dependent = t.top
		}
		if !slices.Contains(t.through[parent], dependent) {
			t.through[parent] = append(t.through[parent], dependent)
		}
	})
}

// successor returns the file that has taken the place of one that is gone, or else that one itself: symlinks may lead
// elsewhere by the same path.
func (t *tree) successor(f *file) *file {
	if !f.gone {
		return f
	}
	if t.byPath == nil {
		t.byPath = make(map[string]*dir, len(t.dirs))
		for _, d := range t.dirs {
			t.byPath[d.path] = d
		}
	}
	d := t.byPath[f.dir.path]
	if d == nil {
		return f
	}
	return cmp.Or(d.file(f.name), f)
}

// file returns the file of a name, or nil.
func (d *dir) file(name string) *file {
	if i, ok := slices.BinarySearchFunc(d.files, name, byName); ok {
		return d.files[i]
	}
	return nil
}

// all calls each for every file that is known.
func (t *tree) all(each func(*file)) {
	for _, f := range t.top.files {
		if !f.searched {
			each(f)
		}
	}
	for _, d := range t.dirs {
		for _, f := range d.files {
			if !f.searched {
				each(f)
			}
		}
	}
}

func hidden(name string) bool { return strings.HasPrefix(name, ".") }

func byName(f *file, name string) int { return cmp.Compare(f.name, name) }

// common are names that a directory for each certificate repeats.
var common = []string{"README", "cert.pem", "chain.pem", "fullchain.pem", "privkey.pem", "tls.crt", "tls.key", "ca.crt", "ca.cer",
	"fullchain.cer"}

// intern saves memory where a name is common.
func intern(name string) string {
	if i := slices.Index(common, name); i >= 0 {
		return common[i]
	}
	return name
}
