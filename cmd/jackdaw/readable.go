package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"jackdaw/configs"
	"jackdaw/tlsstore"
)

// serviceUser is whom the package has the daemon run as.
const serviceUser = "jackdaw"

// certbotHook lies below the directory of an ACME client's, and lets the service user read what is in there.
const certbotHook = "renewal-hooks/deploy/jackdaw"

// errNotHere says that no other user's rights can be tried on this system.
var errNotHere = errors.New("what another user may read cannot be tried on this system")

// right is what a user must be allowed to do with a file or directory.
type right uint32

// The rights, as access(2) numbers them. The name of a directory is looked up by mayEnter, what is in it is listed by mayRead, and
// who connects with a socket must have mayWrite.
const (
	mayRead  right = 4
	mayWrite right = 2
	mayEnter right = 1
)

// reader is the user that the daemon runs as, if that is somebody else.
type reader struct {
	name, group string // the user's own group
	uid, gid    int
	groups      []uint32
}

// newReader finds the user to ask for: the one of that name, or where none is named, for root alone, the service user. nil means
// that there is nobody to ask for.
func newReader(name string) (*reader, error) {
	named := name != ""
	if !named {
		name = serviceUser
	}
	found, err := user.Lookup(name)
	switch {
	case !named && (os.Getuid() != 0 || err != nil):
		return nil, nil
	case err != nil:
		return nil, err
	case os.Getuid() != 0:
		return nil, errors.New("only root can try what another user may read")
	}
	r := &reader{name: name}
	ids, err := found.GroupIds()
	if err == nil {
		_, err = fmt.Sscan(found.Uid+" "+found.Gid, &r.uid, &r.gid)
	}
	for _, id := range ids {
		var gid uint32
		if _, failed := fmt.Sscan(id, &gid); failed == nil {
			r.groups = append(r.groups, gid)
		}
	}
	r.group = groupName(uint32(r.gid))
	return r, err
}

// groupName is the name of a group, or its number where it has none.
func groupName(gid uint32) string {
	if g, err := user.LookupGroupId(fmt.Sprint(gid)); err == nil {
		return g.Name
	}
	return fmt.Sprint(gid)
}

// unreadable lists what the configuration leads to and the user may not read, with a command that mends it. The way to a file is
// part of it, by its name and by what symlinks lead to.
func (r *reader) unreadable(file string, config *configs.Config, certificates []tlsstore.Certificate) ([]tlsstore.Problem, error) {
	w := wanted{rights: make(map[string]right)}
	w.configuration(file, config)
	w.certificates(config.TLS.Certificates, certificates)
	blocked, err := r.blocked(w.rights)
	if err != nil {
		return nil, err
	}
	var advice []string
	about := make(map[string][]string)
	for _, path := range slices.Sorted(maps.Keys(blocked)) {
		mend := r.mend(path, blocked[path], w.within(path))
		if path == w.private {
			mend = "run chown " + r.name + " {}"
		}
		if about[mend] == nil {
			advice = append(advice, mend)
		}
		about[mend] = append(about[mend], path)
	}
	var problems []tlsstore.Problem
	for _, mend := range advice {
		paths := about[mend]
		text := fmt.Sprintf("user %s has no access", r.name)
		if len(paths) > 1 {
			text = fmt.Sprintf("user %s has no access to it, nor to %d more", r.name, len(paths)-1)
		}
		problems = append(problems, tlsstore.Problem{File: paths[0], Text: text + "; " + advise(mend, paths)})
	}
	return problems, nil
}

// advise fills paths into what mend has said of all of them.
func advise(mend string, paths []string) string {
	var quoted []string
	for _, path := range paths {
		quoted = append(quoted, quote(path))
	}
	return strings.ReplaceAll(mend, "{}", strings.Join(quoted, " "))
}

// hiddenFrom lists what a user may not read that the daemon runs as, if it is known who that is.
func hiddenFrom(name, file string, config *configs.Config, store *tlsstore.Store) ([]tlsstore.Problem, error) {
	r, err := newReader(name)
	if r == nil || err != nil {
		return nil, err
	}
	problems, err := r.unreadable(file, config, store.Certificates())
	if name == "" && errors.Is(err, errNotHere) {
		return nil, nil
	}
	return problems, err
}

// mend says what gives the user rights on a path. Whatever belongs to a group other than root's has been given to it by somebody,
// who is not to be overruled: the user joins the group. "{}" stands for the path, and for all others of which the same is said.
func (r *reader) mend(path string, want right, within string) string {
	if home := homeOf(path); home != "" {
		return "services see nothing of " + home + ": have certificates installed in /etc/jackdaw/certs"
	}
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		if hook := filepath.Join(dir, certbotHook); exists(hook) {
			return "run " + hook
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return err.Error()
	}
	gid, missing := info.Sys().(*syscall.Stat_t).Gid, want&^right(info.Mode().Perm()>>3)
	join := fmt.Sprintf("usermod -aG %s %s && systemctl try-restart %s", groupName(gid), r.name, serviceUser)
	widen := "chmod g+" + letters(want) + " {}"
	switch {
	case info.Mode()&fs.ModeSocket != 0 && (gid == 0 || missing != 0):
		return fmt.Sprintf("have the server that listens there give it to group %s", r.group)
	case gid == 0 && within != "":
		return fmt.Sprintf("run chgrp -R %s %s && chmod -R g+rX %[2]s", r.group, quote(within))
	case gid == 0:
		return fmt.Sprintf("run chgrp %s {} && %s", r.group, widen)
	case gid == uint32(r.gid) || slices.Contains(r.groups, gid):
		return "run " + widen
	case missing == 0:
		return "run " + join
	}
	return "run " + widen + " && " + join
}

func letters(want right) string {
	switch want {
	case mayRead:
		return "r"
	case mayEnter:
		return "x"
	}
	return "rx"
}

// homeOf returns the part of a path that the unit hides from the daemon; "" for other paths.
func homeOf(path string) string {
	for _, home := range []string{"/home", "/root", "/run/user"} {
		if path == home || strings.HasPrefix(path, home+"/") {
			return home
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// quote writes a path as a shell takes it.
func quote(path string) string {
	if !strings.ContainsFunc(path, func(c rune) bool {
		return !strings.ContainsRune("/._-+@:=%", c) && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	}) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// wanted collects the rights that a daemon needs.
type wanted struct {
	rights  map[string]right
	private string   // must be nobody's but the user's
	roots   []string // directories of certificates
}

// configuration wants the file, and all files that are read and sockets that are connected with at its word.
func (w *wanted) configuration(file string, config *configs.Config) {
	files := append([]string{file, config.TLS.TicketKeys, config.TLS.ClientCA, config.ACME.CA, config.Limits.DenyFile,
		config.Auth.Tokens.TLSCA}, config.SecretFiles...)
	for _, policy := range config.TLS.Policies {
		files = append(files, policy.ClientCA)
	}
	sockets := []string{config.Auth.Socket}
	for _, d := range config.Directories {
		files = append(files, d.Path, d.TLSCA)
		if d.Driver == "sqlite" && !strings.HasPrefix(d.DSN, "file:") {
			files = append(files, d.DSN)
		}
		for _, url := range d.URLs {
			if server, _, err := configs.LDAPServer(url); err == nil && server.Network == "unix" {
				sockets = append(sockets, server.Address)
			}
		}
	}
	for _, b := range config.Backends {
		for _, access := range b.Access {
			files = append(files, access.TLSCA)
			for _, address := range access.Addresses {
				if address.Network == "unix" {
					sockets = append(sockets, address.Address)
				}
			}
		}
	}
	for _, path := range files {
		if path != "" {
			w.want(path, mayRead)
		}
	}
	for _, path := range sockets {
		if path != "" {
			w.want(path, mayWrite)
		}
	}
	w.private, _ = filepath.EvalSymlinks(absolute(config.TLS.TicketKeys))
}

// certificates wants what is named, and all that was found there. A directory is listed and watched; so is what symlinks lead to.
func (w *wanted) certificates(named []string, found []tlsstore.Certificate) {
	for _, path := range named {
		info, err := os.Stat(path)
		if err == nil && info.IsDir() {
			w.want(path, mayRead|mayEnter)
			w.roots = append(w.roots, absolute(path))
			continue
		}
		w.want(path, mayRead)
	}
	for _, c := range found {
		if c.Source != tlsstore.FromFile {
			continue
		}
		for _, path := range append([]string{c.ChainFile, c.KeyFile}, c.Copies...) {
			w.want(path, mayRead)
			if w.within(absolute(path)) == "" {
				continue // named by itself
			}
			w.want(filepath.Dir(path), mayRead|mayEnter)
			if target, err := filepath.EvalSymlinks(path); err == nil {
				w.want(filepath.Dir(target), mayRead|mayEnter)
			}
		}
	}
}

// within returns the directory of certificates that a path is in, or is; "" if there is none.
func (w *wanted) within(path string) string {
	for _, root := range w.roots {
		if path == root || strings.HasPrefix(path, root+"/") {
			return root
		}
	}
	return ""
}

// want wants a right on a path and the way there. What is not there others complain about.
func (w *wanted) want(path string, what right) {
	path = absolute(path)
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return
	}
	w.rights[target] |= what
	for _, way := range []string{path, target} {
		for dir := filepath.Dir(way); w.rights[dir]&mayEnter == 0; dir = filepath.Dir(dir) {
			w.rights[dir] |= mayEnter
		}
	}
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
