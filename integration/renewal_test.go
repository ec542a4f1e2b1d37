package integration

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"jackdaw/internal/devca"
)

// keeper is how a program keeps a name's certificates below a directory. Version 1 is new there, the others are renewals.
type keeper func(t testing.TB, dir, name string, version int, leaf devca.Leaf)

// kept is a certificate that a program keeps where jackdaw finds it.
type kept struct {
	dir, name    string
	keep         keeper
	version      int
	former, leaf devca.Leaf
}

// renew has the program put the next version in its place.
func (k *kept) renew(t testing.TB, ca *devca.CA) {
	t.Helper()
	k.version++
	leaf, err := ca.Issue(devca.Options{Names: []string{k.name}, NotAfter: time.Now().AddDate(0, 1, k.version)})
	must(t, err)
	k.former, k.leaf = k.leaf, leaf
	k.keep(t, k.dir, k.name, k.version, leaf)
}

// arrives waits until clients are shown the version. Until then they are shown the one before, and as soon as one service
// has it the others do.
func (k *kept) arrives(t testing.TB, jd *jackdaw, services ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("version %d for %s is shown", k.version, k.name), func() bool {
		shown := jd.presents(t, services[0], k.name)
		if !shown.Equal(k.leaf.TLS.Leaf) && !shown.Equal(k.former.TLS.Leaf) {
			t.Fatalf("%s is shown something else", k.name)
		}
		return shown.Equal(k.leaf.TLS.Leaf)
	})
	k.stays(t, jd, services...)
}

// stays wants every service to show the version.
func (k *kept) stays(t testing.TB, jd *jackdaw, services ...string) {
	t.Helper()
	for _, service := range services {
		if !jd.presents(t, service, k.name).Equal(k.leaf.TLS.Leaf) {
			t.Errorf("by %s %s is not shown version %d", service, k.name, k.version)
		}
	}
}

// renewTwice renews them all at once, and again: what has been replaced is watched as well.
func renewTwice(t testing.TB, jd *jackdaw, all []*kept, services ...string) {
	t.Helper()
	for range 2 {
		for _, k := range all {
			k.renew(t, jd.ca)
		}
		for _, k := range all {
			k.arrives(t, jd, services...)
		}
	}
}

// presents is the certificate that a client of a service is shown, in TLS or after STARTTLS. It must be good for the name.
func (jd *jackdaw) presents(t testing.TB, service, name string) *x509.Certificate {
	t.Helper()
	d := jd.meet(t, client{}.at(service, name))
	defer d.conn.Close()
	return d.conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
}

// certbot puts new files into archive, and then the links in live one after the other.
func certbot(t testing.TB, dir, name string, version int, leaf devca.Leaf) {
	t.Helper()
	archive, live := filepath.Join(dir, "../archive", name), filepath.Join(dir, name)
	mustMkdirAll(t, archive)
	mustMkdirAll(t, live)
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.TLS.Certificate[0]})
	keep(t, fmt.Sprintf("%s/privkey%d.pem", archive, version), string(leaf.KeyPEM))
	keep(t, fmt.Sprintf("%s/cert%d.pem", archive, version), string(own))
	keep(t, fmt.Sprintf("%s/chain%d.pem", archive, version), string(leaf.ChainPEM[len(own):]))
	keep(t, fmt.Sprintf("%s/fullchain%d.pem", archive, version), string(leaf.ChainPEM))
	for _, kind := range []string{"cert", "privkey", "chain", "fullchain"} {
		link := filepath.Join(live, kind+".pem")
		if version > 1 {
			must(t, os.Remove(link))
		}
		must(t, os.Symlink(fmt.Sprintf("../../archive/%s/%s%d.pem", name, kind, version), link))
	}
}

// acmeSh writes over its files.
func acmeSh(t testing.TB, dir, name string, _ int, leaf devca.Leaf) {
	t.Helper()
	dir = filepath.Join(dir, name)
	mustMkdirAll(t, dir)
	keep(t, filepath.Join(dir, "key.pem"), string(leaf.KeyPEM))
	keep(t, filepath.Join(dir, "fullchain.pem"), string(leaf.ChainPEM))
}

// caddy replaces its files, and has one more about the certificate.
func caddy(t testing.TB, dir, name string, _ int, leaf devca.Leaf) {
	t.Helper()
	dir = filepath.Join(dir, "acme-v02.api.letsencrypt.org-directory", name)
	mustMkdirAll(t, dir)
	replace(t, filepath.Join(dir, name+".key"), leaf.KeyPEM)
	replace(t, filepath.Join(dir, name+".crt"), leaf.ChainPEM)
	replace(t, filepath.Join(dir, name+".json"), []byte(`{"sans": ["`+name+`"]}`))
}

// combined is one file for HAProxy, which is replaced.
func combined(t testing.TB, dir, name string, _ int, leaf devca.Leaf) {
	t.Helper()
	mustMkdirAll(t, dir)
	replace(t, filepath.Join(dir, name+".pem"), append(leaf.ChainPEM[:len(leaf.ChainPEM):len(leaf.ChainPEM)], leaf.KeyPEM...))
}

// dehydrated gives every file a name of its own, and has links to the newest beside them.
func dehydrated(t testing.TB, dir, name string, version int, leaf devca.Leaf) {
	t.Helper()
	dir = filepath.Join(dir, name)
	mustMkdirAll(t, dir)
	for kind, data := range map[string][]byte{"privkey": leaf.KeyPEM, "fullchain": leaf.ChainPEM} {
		file := fmt.Sprintf("%s-%d.pem", kind, version)
		keep(t, filepath.Join(dir, file), string(data))
		relink(t, file, filepath.Join(dir, kind+".pem"))
	}
}

// kubernetes has a directory for each version, and one link that is turned.
func kubernetes(t testing.TB, dir, name string, version int, leaf devca.Leaf) {
	t.Helper()
	dir = filepath.Join(dir, name)
	data := fmt.Sprintf("..2026_11_21_00_00_00.%d", version)
	mustMkdirAll(t, filepath.Join(dir, data))
	keep(t, filepath.Join(dir, data, "tls.crt"), string(leaf.ChainPEM))
	keep(t, filepath.Join(dir, data, "tls.key"), string(leaf.KeyPEM))
	relink(t, data, filepath.Join(dir, "..data"))
	if version == 1 {
		must(t, os.Symlink("..data/tls.crt", filepath.Join(dir, "tls.crt")))
		must(t, os.Symlink("..data/tls.key", filepath.Join(dir, "tls.key")))
		return
	}
	must(t, os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..2026_11_21_00_00_00.%d", version-1))))
}

// replace writes another file and renames it over the old one.
func replace(t testing.TB, path string, data []byte) {
	t.Helper()
	next := filepath.Join(filepath.Dir(path), ".next-"+filepath.Base(path))
	keep(t, next, string(data))
	must(t, os.Rename(next, path))
}

// relink makes a symlink, or replaces it.
func relink(t testing.TB, target, path string) {
	t.Helper()
	next := filepath.Join(filepath.Dir(path), ".next-"+filepath.Base(path))
	must(t, os.Symlink(target, next))
	must(t, os.Rename(next, path))
}

func mustMkdirAll(t testing.TB, dir string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestRenewalAmongThousands: however a certificate is renewed, all services show the new one to whoever comes next.
// Thousands of other names show theirs as before, and hundreds of sessions notice nothing.
func TestRenewalAmongThousands(t *testing.T) {
	t.Parallel()
	const many, idle = 2000, 200
	ca, dir := newCA(t), quickDir(t)
	tools := []*kept{
		{dir: dir + "/acme.sh", name: "acme-sh.example", keep: acmeSh},
		{dir: dir + "/caddy", name: "caddy.example", keep: caddy},
		{dir: dir + "/haproxy", name: "haproxy.example", keep: combined},
		{dir: dir + "/dehydrated", name: "dehydrated.example", keep: dehydrated},
		{dir: dir + "/kubernetes", name: "kubernetes.example", keep: kubernetes},
	}
	tree := make([]*kept, many)
	for i := range tree {
		tree[i] = &kept{dir: dir + "/letsencrypt/live", name: fmt.Sprintf("mail.%d.example", i), keep: certbot}
	}
	all := slices.Concat(tools, tree)
	for _, k := range all {
		k.renew(t, ca)
	}

	store := dovecot{extra: crowd}.start(t, "store1", "alice@a.example")
	mta := postfix{sasl: dovecotSASL(store)}.start(t, "mta")
	jd := frontend{ca: ca, certificates: listed(all), limits: "sessions_per_user = 0"}.start(t, store.backend(mta.as("submission")))
	services := []string{"imaps", "submission", "sieve"}
	for _, service := range services {
		jd.logged(t, "learned capabilities", fmt.Sprintf(`"protocol":%q`, protocol(service)))
	}
	sessions := make([]*dialog, idle)
	for i := range sessions {
		service := append(services, "imaps", "sieve")[i%5] // Postfix takes 50 from an address
		sessions[i] = jd.enter(t, client{}.at(service, all[i].name), "alice@a.example")
	}

	renewTwice(t, jd, append(tools, tree[0], tree[many/2], tree[many-1]), services...)
	for i := 0; i < len(all); i += 100 {
		all[i].stays(t, jd, services...)
	}
	for _, d := range sessions {
		d.noop()
	}
}

// listed is where all those are, for the list of certificates.
func listed(all []*kept) string {
	var dirs []string
	for _, k := range all {
		if dir := fmt.Sprintf("%q", k.dir); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return strings.Join(dirs, ", ")
}

// quickDir makes a directory, in memory where the system has a place for that: a disk takes its time for thousands of files.
func quickDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "jd-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// noop does nothing with a service, which must agree.
func (d *dialog) noop() {
	d.t.Helper()
	switch d.protocol {
	case "imap":
		d.ask("NOOP")
	case "submission":
		if answer := d.smtp("NOOP"); !strings.HasPrefix(answer, "250 ") {
			d.t.Error(answer)
		}
	default:
		d.send("NOOP")
		d.expect("OK")
	}
}
