package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

// somebody is a user who owns nothing.
const somebody = "nobody"

// certbotLike lays a certificate out as certbot does, as if root alone had to do with it.
func certbotLike(t *testing.T, dir, name string) {
	t.Helper()
	ca, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(devca.Options{Names: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	live, archive := filepath.Join(dir, "live", name), filepath.Join(dir, "archive", name)
	must(t, os.MkdirAll(live, 0o755))
	must(t, os.MkdirAll(archive, 0o755))
	must(t, leaf.Write(archive, name))
	for file, original := range map[string]string{"fullchain": name + ".crt", "privkey": name + ".key"} {
		must(t, os.Rename(filepath.Join(archive, original), filepath.Join(archive, file+"1.pem")))
		must(t, os.Symlink("../../archive/"+name+"/"+file+"1.pem", filepath.Join(live, file+".pem")))
	}
	must(t, os.Chmod(filepath.Join(archive, "privkey1.pem"), 0o600))
	must(t, os.Chmod(filepath.Join(dir, "live"), 0o700))
	must(t, os.Chmod(filepath.Join(dir, "archive"), 0o700))
}

// checkAs is what check says, and how it ends.
func checkAs(name, file string) (string, int) {
	var out strings.Builder
	status := run([]string{"check", "-c", file, "--as-user", name}, &out, &out)
	return out.String(), status
}

// TestCheckAsUser: check names everything on the way to a certificate that a user may not read, with commands after which the user
// may.
func TestCheckAsUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can try what another user may read")
	}
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	certbotLike(t, filepath.Join(dir, "certbot"), "mail.a.example")
	certbotLike(t, filepath.Join(dir, "certbot"), "mail.b.example")
	must(t, os.WriteFile(filepath.Join(dir, "the secret"), []byte("secret\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "denied"), []byte("192.0.2.0/24\n"), 0o600))
	l, err := net.Listen("unix", filepath.Join(dir, "mux"))
	must(t, err)
	defer l.Close()
	must(t, os.Chmod(filepath.Join(dir, "mux"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "ticket.keys"), []byte(strings.Repeat("A", 43)+"=\n"), 0o600))
	file := filepath.Join(dir, "jackdaw.toml")
	must(t, os.WriteFile(file, []byte(`
listen.imaps = "127.0.0.1:10993"
tls.certificates = ["certbot/live"]
tls.default = ""
tls.ticket_keys = "ticket.keys"
limits.deny_file = "denied"
[[backend]]
name = "store1"
imap = "127.0.0.1:143"
lmtp = { address = "127.0.0.1:24", login_user = "lmtp", login_password_file = "the secret" }
sieve = "unix:`+dir+`/mux"
`), 0o644))

	said, status := checkAs(somebody, file)
	if status != exitProblem {
		t.Errorf("exit status %d, want %d", status, exitProblem)
	}
	commands := regexp.MustCompile(`(?m)^problem: (.*): user nobody has no access.*; run (.*)$`).FindAllStringSubmatch(said, -1)
	var paths, script []string
	for _, c := range commands {
		paths, script = append(paths, strings.TrimPrefix(c[1], dir+"/")), append(script, c[2])
	}
	want := "certbot/archive, certbot/archive/mail.a.example/privkey1.pem, certbot/live, ticket.keys"
	if got := strings.Join(paths, ", "); got != want {
		t.Fatalf("user %s has no access to %s, want %s; it said\n%s", somebody, got, want, said)
	}
	if all := strings.Join(script, "\n"); !strings.Contains(all, "/denied ") || !strings.Contains(all, "/the secret'") {
		t.Errorf("it forgets files:\n%s", all)
	}
	if out, err := exec.Command("sh", "-ec", strings.Join(script, "\n")).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", script, err, out)
	}
	if keys, err := os.Stat(filepath.Join(dir, "ticket.keys")); err != nil || keys.Mode().Perm() != 0o600 {
		t.Errorf("the ticket keys have mode %v (%v)", keys.Mode(), err)
	}
	if !strings.Contains(said, "mux: user nobody has no access; have the server") {
		t.Errorf("of a socket it does not say who must mend it:\n%s", said)
	}
	must(t, os.Chmod(filepath.Join(dir, "mux"), 0o777))
	if said, status := checkAs(somebody, file); status != exitGood {
		t.Errorf("after\n%s\nit still says\n%s", strings.Join(script, "\n"), said)
	}
	if said, status := checkAs("nobody-at-all", file); status != exitProblem || !strings.Contains(said, "unknown user") {
		t.Errorf("of a user who does not exist it says %q, and ends with %d", said, status)
	}
}

// TestWanted: whatever file is read and whatever socket is connected with at the configuration's word has to be there for the user.
func TestWanted(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, nil, 0o600))
		return path
	}
	config := &configs.Config{
		TLS: configs.TLS{
			TicketKeys: at("read keys"), Terms: configs.Terms{ClientCA: at("read clients")},
			Policies: []configs.TLSPolicy{{Terms: configs.Terms{ClientCA: at("read policy")}}},
		},
		ACME:   configs.ACME{CA: at("read acme")},
		Limits: configs.Limits{DenyFile: at("read denied")},
		Auth:   configs.Auth{Socket: at("write verifier"), Tokens: configs.Tokens{TLSCA: at("read tokens")}},
		Directories: map[string]configs.Directory{
			"file": {Path: at("read users")},
			"sql":  {Driver: "sqlite", DSN: at("read accounts")},
			"ldap": {URLs: []string{"ldap://127.0.0.1", "ldapi://" + at("write ldap")}, TLSCA: at("read directory")},
		},
		Backends: []configs.Backend{{Access: map[configs.Service]configs.Access{
			configs.IMAP: {TLSCA: at("read store"), Addresses: []configs.Address{{Network: "unix", Address: at("write store")}}},
		}}},
		SecretFiles: []string{at("read secret")},
	}
	w := wanted{rights: make(map[string]right)}
	w.configuration(at("read itself"), config)
	all, err := os.ReadDir(dir)
	must(t, err)
	for _, entry := range all {
		want := mayRead
		if strings.HasPrefix(entry.Name(), "write") {
			want = mayWrite
		}
		if got := w.rights[filepath.Join(dir, entry.Name())]; got != want {
			t.Errorf("%s: right %d, want %d", entry.Name(), got, want)
		}
	}
}

// TestMend: the command that is advised goes no further than it must.
func TestMend(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	r := &reader{name: "jackdaw", group: "jackdaw", uid: 4242, gid: 4242}
	dir := t.TempDir()
	hooked := filepath.Join(dir, "certbot")
	hook := filepath.Join(hooked, certbotHook)
	must(t, os.MkdirAll(filepath.Dir(hook), 0o755))
	must(t, os.WriteFile(hook, nil, 0o755))
	key := func(path string, gid int, mode os.FileMode) string {
		path = filepath.Join(dir, path)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, nil, mode))
		must(t, os.Chmod(path, mode))
		must(t, os.Chown(path, 0, gid))
		return path
	}
	daemon, err := user.LookupGroup("daemon")
	must(t, err)
	var gid int
	_, err = fmt.Sscan(daemon.Gid, &gid)
	must(t, err)
	socket := filepath.Join(dir, "mux")
	l, err := net.Listen("unix", socket)
	must(t, err)
	defer l.Close()
	for _, test := range []struct{ path, within, want string }{
		{key("certbot/live/key", 0, 0o600), hooked, "run " + hook},
		{key("a/key", 0, 0o600), "", "run chgrp jackdaw " + dir + "/a/key && chmod g+r " + dir + "/a/key"},
		{key("b/key", 0, 0o600), dir + "/b", "run chgrp -R jackdaw " + dir + "/b && chmod -R g+rX " + dir + "/b"},
		{key("c/key", gid, 0o640), dir + "/c", "run usermod -aG daemon jackdaw && systemctl try-restart jackdaw"},
		{key("d/key", gid, 0o600), dir + "/d", "run chmod g+r " + dir + "/d/key && usermod -aG daemon jackdaw && systemctl try-restart jackdaw"},
		{key("e/it's", 4242, 0o600), "", `run chmod g+r '` + dir + `/e/it'\''s'`},
		{socket, "", "have the server that listens there give it to group jackdaw"},
		{"/root/.acme.sh/key", "/root/.acme.sh", "services see nothing of /root: have certificates installed in /etc/jackdaw/certs"},
	} {
		if got := advise(r.mend(test.path, mayRead, test.within), []string{test.path}); got != test.want {
			t.Errorf("%s: %s\n\twant %s", test.path, got, test.want)
		}
	}
}
