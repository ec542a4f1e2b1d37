package tlsstore

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

// layout writes files for the leaf into dir.
type layout func(t *testing.T, dir string, leaf devca.Leaf)

func certbot(t *testing.T, dir string, leaf devca.Leaf) {
	certbotRenewal(t, dir, "1", leaf)
	write(t, filepath.Join(dir, "live", "README"), []byte("This directory contains your keys and certificates."))
}

// certbotRenewal writes new files and turns the symlinks to them, in certbot's order.
func certbotRenewal(t *testing.T, dir, version string, leaf devca.Leaf) {
	files := map[string][]byte{
		"cert": leafPEM(leaf), "privkey": leaf.KeyPEM, "chain": caPEM(t), "fullchain": leaf.ChainPEM,
	}
	order := []string{"cert", "privkey", "chain", "fullchain"}
	for _, name := range order {
		write(t, filepath.Join(dir, "archive", "mail.example", name+version+".pem"), files[name])
	}
	for _, name := range order {
		target := "../../archive/mail.example/" + name + version + ".pem"
		relink(t, target, filepath.Join(dir, "live", "mail.example", name+".pem"))
	}
}

func kubernetes(t *testing.T, dir string, leaf devca.Leaf) {
	for _, name := range []string{"tls.crt", "tls.key"} {
		must(t, os.Symlink("..data/"+name, filepath.Join(dir, name)))
	}
	kubernetesUpdate(t, dir, leaf)
}

// kubernetesUpdate does as kubelet does: a new directory, ..data is turned to it, the old one goes.
func kubernetesUpdate(t *testing.T, dir string, leaf devca.Leaf) {
	version, data := ".."+leaf.TLS.Leaf.SerialNumber.String(), filepath.Join(dir, "..data")
	former, _ := os.Readlink(data)
	write(t, filepath.Join(dir, version, "tls.crt"), leaf.ChainPEM)
	write(t, filepath.Join(dir, version, "tls.key"), leaf.KeyPEM)
	relink(t, version, data)
	if former != "" {
		must(t, os.RemoveAll(filepath.Join(dir, former)))
	}
}

func plain(files func(devca.Leaf) map[string][]byte) layout {
	return func(t *testing.T, dir string, leaf devca.Leaf) {
		for name, data := range files(leaf) {
			write(t, filepath.Join(dir, name), data)
		}
	}
}

func TestLayouts(t *testing.T) {
	tests := []struct {
		about             string
		write             layout
		root              string // below the directory
		chainFile, copies string
	}{
		{"certbot", certbot, "live", "live/mail.example/fullchain.pem", "live/mail.example/cert.pem"},
		{"kubernetes", kubernetes, "", "tls.crt", ""},
		{"haproxy", plain(func(l devca.Leaf) map[string][]byte {
			return map[string][]byte{"mail.pem": slices.Concat(l.ChainPEM, l.KeyPEM)}
		}), "", "mail.pem", ""},
		{"haproxy with a key apart", plain(func(l devca.Leaf) map[string][]byte {
			return map[string][]byte{"mail.pem": l.ChainPEM, "mail.pem.key": l.KeyPEM}
		}), "", "mail.pem", ""},
		{"acme.sh", plain(func(l devca.Leaf) map[string][]byte {
			return map[string][]byte{
				"mail.example_ecc/mail.example.cer":  leafPEM(l),
				"mail.example_ecc/mail.example.key":  l.KeyPEM,
				"mail.example_ecc/mail.example.conf": []byte("Le_Domain='mail.example'\n"),
				"mail.example_ecc/mail.example.csr":  block("CERTIFICATE REQUEST", []byte{48, 0}),
				"mail.example_ecc/ca.cer":            caPEM(t),
				"mail.example_ecc/fullchain.cer":     l.ChainPEM,
			}
		}), "", "mail.example_ecc/fullchain.cer", "mail.example_ecc/mail.example.cer"},
		{"caddy", plain(func(l devca.Leaf) map[string][]byte {
			return map[string][]byte{
				"acme.example-directory/mail.example/mail.example.crt":  l.ChainPEM,
				"acme.example-directory/mail.example/mail.example.key":  l.KeyPEM,
				"acme.example-directory/mail.example/mail.example.json": []byte(`{"sans":["mail.example"]}`),
			}
		}), "", "acme.example-directory/mail.example/mail.example.crt", ""},
		{"keys in another directory", plain(func(l devca.Leaf) map[string][]byte {
			return map[string][]byte{"certs/mail.cert": l.ChainPEM, "private/mail.key": l.KeyPEM}
		}), "", "certs/mail.cert", ""},
		{"hidden files beside", plain(func(l devca.Leaf) map[string][]byte {
			return map[string][]byte{
				"mail.crt": l.ChainPEM, "mail.key": l.KeyPEM, ".mail.crt.swp": l.ChainPEM[:100], ".git/x": l.KeyPEM[:60],
			}
		}), "", "mail.crt", ""},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			dir, leaf := t.TempDir(), leafFor(t, "mail.example")
			tt.write(t, dir, leaf)
			root := filepath.Join(dir, tt.root)
			f := openFixture(t, dir, configs.TLS{Certificates: []string{root}}, quick)
			f.mustHaveNoProblems()
			if chain := f.shown("mail.example"); !slices.EqualFunc(chain, leaf.TLS.Certificate, bytes.Equal) {
				t.Errorf("shown a chain of %d, want the leaf and its issuer", len(chain))
			}
			list := f.Certificates()
			if len(list) != 1 {
				t.Fatalf("%d certificates: %+v", len(list), list)
			}
			if got := strings.TrimPrefix(list[0].ChainFile, dir+"/"); got != tt.chainFile {
				t.Errorf("the chain is from %s, want %s", got, tt.chainFile)
			}
			var want []string
			if tt.copies != "" {
				want = []string{filepath.Join(dir, tt.copies)}
			}
			if !slices.Equal(list[0].Copies, want) {
				t.Errorf("copies %q, want %q", list[0].Copies, want)
			}
		})
	}
}

func TestSingleFilesAndTheirDirectoryCountOnce(t *testing.T) {
	dir, leaf := t.TempDir(), leafFor(t, "mail.example")
	must(t, leaf.Write(dir, "mail"))
	chainFile, keyFile := filepath.Join(dir, "mail.crt"), filepath.Join(dir, "mail.key")
	for _, roots := range [][]string{{chainFile, keyFile}, {keyFile, chainFile, dir}, {dir, dir, chainFile}} {
		f := openFixture(t, dir, configs.TLS{Certificates: roots}, quick)
		f.mustHaveNoProblems()
		f.mustShow("mail.example", leaf)
		if list := f.Certificates(); len(list) != 1 || len(list[0].Copies) > 0 {
			t.Errorf("%q: %+v", roots, list)
		}
	}
}

func TestSymlinksThatLeadAstray(t *testing.T) {
	dir, leaf := t.TempDir(), leafFor(t, "mail.example")
	certs := filepath.Join(dir, "certs")
	must(t, os.MkdirAll(certs, 0o700))
	must(t, leaf.Write(certs, "mail"))
	must(t, os.Symlink("loop", filepath.Join(certs, "loop")))
	must(t, os.Symlink("..", filepath.Join(certs, "up")))
	must(t, os.Symlink(".", filepath.Join(certs, "here")))
	must(t, os.Symlink("nowhere", filepath.Join(certs, "dangling")))
	must(t, os.Symlink("/dev/zero", filepath.Join(certs, "device")))
	f := openFixture(t, certs, configs.TLS{Certificates: []string{certs}}, quick)
	f.mustShow("mail.example", leaf)
	if list := f.Certificates(); len(list) != 1 {
		t.Errorf("%+v", list)
	}
	if len(f.Problems()) != 2 || !f.hasProblem("loop") || !f.hasProblem("dangling") {
		t.Errorf("problems: %v", f.Problems())
	}
}

func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	write(t, filepath.Join(dir, "v1", "sub", "file"), nil)
	must(t, os.Symlink("v1", filepath.Join(dir, "current")))
	must(t, os.Symlink(filepath.Join(dir, "current", "sub"), filepath.Join(dir, "absolute")))
	must(t, os.Symlink("current/sub/../sub/file", filepath.Join(dir, "winding")))
	for _, tt := range []struct{ path, want, awaited string }{
		{"v1/sub/file", "v1/sub/file", "v1/sub/file"},
		{"current/sub/file", "v1/sub/file", "current v1/sub/file"},
		{"absolute/file", "v1/sub/file", "absolute current v1/sub/file"},
		{"winding", "v1/sub/file", "winding current v1/sub/file"},
		{"current/gone/file", "", "current v1/gone"},
	} {
		var awaited []string
		_, real, err := resolve("/", strings.TrimPrefix(filepath.Join(dir, tt.path), "/"), new(string), func(path string, _ bool) {
			awaited = append(awaited, strings.TrimPrefix(path, dir+"/"))
		})
		if got := strings.TrimPrefix(real, dir+"/"); got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s leads to %q: %v", tt.path, got, err)
		}
		if got := strings.Join(awaited, " "); got != tt.awaited {
			t.Errorf("%s awaits %q, want %q", tt.path, got, tt.awaited)
		}
	}
}

// Files that are too large are passed over, as are those that merely look like PEM.
func TestLargeFiles(t *testing.T) {
	leaf := leafFor(t, "mail.example")
	f := newFixture(t, map[string][]byte{
		"mail.key":  leaf.KeyPEM,
		"mail.crt":  leaf.ChainPEM,
		"large.crt": append(bytes.Repeat([]byte("\n"), maxFile), leaf.ChainPEM[:100]...),
	})
	f.mustHaveNoProblems()
	f.mustShow("mail.example", leaf)
}

// alter changes one byte in the middle of a file in place, and the file's time to modified.
func alter(t *testing.T, path string, modified time.Time) {
	t.Helper()
	data := read(t, path)
	data[len(data)/2] ^= 1
	must(t, os.WriteFile(path, data, 0o600))
	must(t, os.Chtimes(path, modified, modified))
}

// Only files that have changed are read again, which shows where a change hides behind the old time and size. A time
// that is too young to rely on hides nothing.
func TestUnchangedFilesAreNotReadAgain(t *testing.T) {
	leaf, now := leafFor(t, "mail.example"), time.Now()
	for _, tt := range []struct {
		about         string
		before, after time.Time
		noticed       bool
	}{
		{"old time", now.AddDate(0, 0, -1), now.AddDate(0, 0, -1), false},
		{"another time", now.AddDate(0, 0, -2), now.AddDate(0, 0, -1), true},
		{"young time", now.Add(time.Minute), now.Add(time.Minute), true},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "mail.pem")
		write(t, path, leaf.ChainPEM)
		must(t, os.Chtimes(path, tt.before, tt.before))
		s := newScanner(true)
		f := &file{dir: place(dir), name: "mail.pem"}
		first := s.look(f)
		f.state = first.state
		alter(t, path, tt.after)
		if second := s.look(f); (second != nil) != tt.noticed {
			t.Errorf("%s: noticed: %v, want %v", tt.about, second != nil, tt.noticed)
		}
	}
}

func place(path string) *dir { return &dir{path: path, real: path} }
