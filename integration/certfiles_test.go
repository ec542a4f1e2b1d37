package integration

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"jackdaw/internal/devca"
)

// TestChangedFiles: in whatever way files change, the new certificate is shown, and so is the one after it. In the end
// nothing is wrong with any of them.
func TestChangedFiles(t *testing.T) {
	t.Parallel()
	ca, dir := newCA(t), t.TempDir()
	var all []*kept
	for name, keep := range map[string]keeper{
		"written-over":     acmeSh,
		"renamed-over":     caddy,
		"links-turned":     dehydrated,
		"removed-first":    removed,
		"moved-in":         movedIn,
		"directory-turned": released,
		"led-back":         ledBack,
	} {
		k := &kept{dir: filepath.Join(dir, name), name: name + ".example", keep: keep}
		k.renew(t, ca)
		all = append(all, k)
	}
	store := startDovecot(t, "store1", passwords)
	jd := frontend{ca: ca, certificates: fmt.Sprintf("%q", dir)}.start(t, store.backend())
	renewTwice(t, jd, all, "imaps", "sieve")
	if problems := jd.certs(t, jd.file); len(problems) > 0 {
		t.Errorf("jackdaw certs finds %q", problems)
	}
}

// removed takes the files away before there are others.
func removed(t testing.TB, dir, name string, version int, leaf devca.Leaf) {
	t.Helper()
	must(t, os.RemoveAll(filepath.Join(dir, name)))
	acmeSh(t, dir, name, version, leaf)
}

// movedIn puts another directory in the place of the one that has the files.
func movedIn(t testing.TB, dir, name string, version int, leaf devca.Leaf) {
	t.Helper()
	aside := t.TempDir()
	acmeSh(t, aside, "next", version, leaf)
	mustMkdirAll(t, dir)
	if version > 1 {
		must(t, os.Rename(filepath.Join(dir, name), filepath.Join(aside, "former")))
	}
	must(t, os.Rename(filepath.Join(aside, "next"), filepath.Join(dir, name)))
}

// released has a directory for each version out of sight, and a link to the newest.
func released(t testing.TB, dir, name string, version int, leaf devca.Leaf) {
	t.Helper()
	aside := t.TempDir()
	acmeSh(t, aside, "release", version, leaf)
	mustMkdirAll(t, dir)
	relink(t, filepath.Join(aside, "release"), filepath.Join(dir, name))
}

// ledBack has a link beside the files that leads to where they are.
func ledBack(t testing.TB, dir, name string, version int, leaf devca.Leaf) {
	t.Helper()
	acmeSh(t, dir, name, version, leaf)
	if version == 1 {
		must(t, os.Symlink("..", filepath.Join(dir, name, "up")))
	}
}

// place is a directory with the files of a name, mail.crt and mail.key, to which something happens.
type place struct {
	jd                     *jackdaw
	root                   string // has the directory, and nothing else
	name                   string
	first, second, another devca.Leaf // another is for another name, and comes and goes beside the files
	damage
}

// damage is what can happen to them in one step.
type damage struct {
	do     func(testing.TB, *place)
	whole  bool // it happens to the directory itself
	unseen bool // who has not seen the files before finds nothing wrong
}

// damages leave something from which no certificate can be read. Some are on the way from one to the next.
var damages = map[string]damage{
	"chain-first":   {do: func(t testing.TB, p *place) { p.put(t, p.file("mail.crt"), p.second.ChainPEM, 0o600) }},
	"key-first":     {do: func(t testing.TB, p *place) { p.put(t, p.file("mail.key"), p.second.KeyPEM, 0o600) }},
	"chain-cut-off": {do: func(t testing.TB, p *place) { p.put(t, p.file("mail.crt"), p.second.ChainPEM[:500], 0o600) }},
	"chain-emptied": {do: func(t testing.TB, p *place) { must(t, os.Truncate(p.file("mail.crt"), 0)) }},
	"key-emptied":   {do: func(t testing.TB, p *place) { must(t, os.Truncate(p.file("mail.key"), 0)) }},
	"no-pem": {do: func(t testing.TB, p *place) {
		p.put(t, p.file("mail.crt"), bytes.Repeat([]byte("\xff\n\x00"), 1000), 0o600)
	}},
	"no-der":           {do: func(t testing.TB, p *place) { p.put(t, p.file("mail.crt"), nonsense, 0o600) }},
	"gigabyte":         {do: func(t testing.TB, p *place) { must(t, os.Truncate(p.file("mail.crt"), 1<<30)) }},
	"chain-removed":    {do: func(t testing.TB, p *place) { must(t, os.Remove(p.file("mail.crt"))) }},
	"key-removed":      {do: func(t testing.TB, p *place) { must(t, os.Remove(p.file("mail.key"))) }},
	"key-forbidden":    {do: func(t testing.TB, p *place) { p.put(t, p.file("mail.key"), p.second.KeyPEM, 0) }},
	"chain-forbidden":  {do: func(t testing.TB, p *place) { p.put(t, p.file("mail.crt"), p.second.ChainPEM, 0) }},
	"pipe":             {do: func(t testing.TB, p *place) { p.pipe(t, p.file("mail.crt")) }},
	"link-to-itself":   {do: func(t testing.TB, p *place) { relink(t, "mail.crt", p.file("mail.crt")) }},
	"link-to-nowhere":  {do: func(t testing.TB, p *place) { relink(t, "missing", p.file("mail.key")) }},
	"directory-closed": {do: func(t testing.TB, p *place) { must(t, os.Chmod(p.file(""), 0)) }, whole: true},
	"directory-away": {
		do:    func(t testing.TB, p *place) { must(t, os.Rename(p.file(""), filepath.Join(t.TempDir(), "away"))) },
		whole: true, unseen: true,
	},
}

var nonsense = []byte("-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n")

func (p *place) file(name string) string { return filepath.Join(p.root, "pair", name) }

// put replaces a file.
func (p *place) put(t testing.TB, path string, data []byte, mode os.FileMode) {
	t.Helper()
	next := filepath.Join(filepath.Dir(path), ".next")
	write(t, next, string(data))
	must(t, os.Chmod(next, mode))
	must(t, os.Rename(next, path))
}

// pipe replaces a file by a pipe, into which nobody writes.
func (p *place) pipe(t testing.TB, path string) {
	t.Helper()
	next := filepath.Join(filepath.Dir(path), ".next")
	must(t, syscall.Mkfifo(next, 0o600))
	give(t, next)
	must(t, os.Rename(next, path))
}

// fill makes the directory, if it is not there, and puts a pair into it.
func (p *place) fill(t testing.TB, leaf devca.Leaf) {
	t.Helper()
	mustMkdirAll(t, p.file(""))
	must(t, os.Chmod(p.file(""), 0o700))
	give(t, p.root)
	give(t, p.file(""))
	p.put(t, p.file("mail.key"), leaf.KeyPEM, 0o600)
	p.put(t, p.file("mail.crt"), leaf.ChainPEM, 0o600)
}

// stir puts a new certificate for another name beside the files.
func (p *place) stir(t testing.TB, ca *devca.CA) {
	t.Helper()
	p.another = issue(t, ca, "another."+p.name)
	path := p.file("another.pem")
	if p.whole {
		path = filepath.Join(p.root, "another.pem")
	}
	p.put(t, path, slices.Concat(p.another.ChainPEM, p.another.KeyPEM), 0o600)
}

// shows tells whether the leaf is shown to its name's clients. Others may be shown one of another name instead.
func (p *place) shows(t testing.TB, leaf devca.Leaf) bool {
	t.Helper()
	config := &tls.Config{ServerName: leaf.TLS.Leaf.DNSNames[0], InsecureSkipVerify: true}
	d := dialTLS(t, p.jd.at(portIMAPS), config)
	defer d.conn.Close()
	return d.conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Equal(leaf.TLS.Leaf)
}

// warnings counts what the log says of the place.
func (p *place) warnings() int { return p.jd.count(`"level":"warn"`, p.root+"/") }

// found has jackdaw certs look at the place, and returns what it finds wrong.
func (p *place) found(t testing.TB) []string {
	t.Helper()
	config := filepath.Join(p.jd.dir, p.name+".toml")
	write(t, config, expand(certsConfig, map[string]string{"dir": p.root}))
	return p.jd.certs(t, config)
}

const certsConfig = `
[listen]
imaps = "127.0.0.1:1"
[tls]
certificates = ["$dir"]
default = ""
[[backend]]
name = "store"
imap = "127.0.0.1:2"
`

type places []*place

// fillPlaces makes a place for each damage.
func fillPlaces(t testing.TB, ca *devca.CA, dir string) (all places) {
	t.Helper()
	for about, damage := range damages {
		name := about + ".example"
		p := &place{root: filepath.Join(dir, about), name: name, damage: damage}
		p.first, p.second = issue(t, ca, name), issue(t, ca, name)
		p.fill(t, p.first)
		all = append(all, p)
	}
	return all
}

// await waits until it is true of every place.
func (all places) await(t testing.TB, what string, ok func(*place) bool) {
	t.Helper()
	for _, p := range all {
		eventually(t, p.name+" "+what, func() bool { return ok(p) })
	}
}

// TestDamagedFiles: whatever happens to the files of a certificate, it is shown as before, and the log says once that they
// are damaged, however often they are looked at. Others are none the wiser, and what is put right is shown.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	ca, dir := newCA(t), serverDir(t)
	all := fillPlaces(t, ca, dir)
	store := startDovecot(t, "store1", passwords, "alice@a.example")
	jd := frontend{servant: true, ca: ca, certificates: fmt.Sprintf("%q", dir)}.start(t, store.backend())
	session := jd.login("mail.a.example", "alice")
	for _, p := range all {
		p.jd = jd
		p.do(t, p)
	}
	all.await(t, "is complained of", func(p *place) bool { return p.warnings() > 0 })
	for _, p := range all {
		if !p.shows(t, p.first) {
			t.Errorf("%s is not shown its certificate", p.name)
		}
		if found := p.found(t); (len(found) == 0) != p.unseen {
			t.Errorf("of %s jackdaw certs says %q", p.name, found)
		}
	}
	for range 3 {
		for _, p := range all {
			p.stir(t, ca)
		}
		all.await(t, "has news beside it", func(p *place) bool { return p.shows(t, p.another) })
	}
	for _, p := range all {
		if !p.unseen && !p.shows(t, p.first) { // what is gone altogether is shown for a minute only
			t.Errorf("%s is not shown its certificate any more", p.name)
		}
		if n := p.warnings(); n != 1 {
			t.Errorf("there are %d warnings of %s", n, p.name)
		}
	}
	for _, p := range all {
		p.fill(t, p.second)
	}
	all.await(t, "is shown the next", func(p *place) bool { return p.shows(t, p.second) })
	session.ask("NOOP")
	if most := jd.mostMemory(t); most > 512<<20 {
		t.Errorf("jackdaw has taken %d MB", most>>20)
	}
}

// issue makes a certificate for a name.
func issue(t testing.TB, ca *devca.CA, name string) devca.Leaf {
	t.Helper()
	leaf, err := ca.Issue(devca.Options{Names: []string{name}})
	must(t, err)
	return leaf
}

// certs has jackdaw certs look at what a configuration leads to. It must be of one mind with itself about how it ends.
func (jd *jackdaw) certs(t testing.TB, config string) (problems []string) {
	t.Helper()
	cmd := jd.command(built(t), "certs", "--json", "-c", config)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 1) {
		t.Fatalf("%s: %v\n%s", cmd, err, errOut.Bytes())
	}
	var found struct{ Problems []struct{ File, Text string } }
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out, errOut.Bytes())
	}
	for _, p := range found.Problems {
		problems = append(problems, p.File+": "+p.Text)
	}
	if ok := err == nil; ok != (len(problems) == 0) {
		t.Errorf("jackdaw certs ends with %v and has the problems %q", err, problems)
	}
	return problems
}

// mostMemory is how much the process has had at once, in bytes; 0 where the system does not say.
func (p *process) mostMemory(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil && runtime.GOOS != "linux" {
		return 0
	}
	must(t, err)
	return number(t, peak.FindStringSubmatch(string(status))[1]) << 10
}

var peak = regexp.MustCompile(`VmHWM:\s*(\d+) kB`)
