package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"jackdaw/internal/devca"
)

// installation is a root directory that packages are installed into. In place of systemd stands what is written down here.
type installation struct {
	t    *testing.T
	root string
	said string // by the last dpkg
}

// newInstallation makes a root with an empty database of packages, in which systemd seems to run. It starts nothing, and says
// that the service is active after activate.
func newInstallation(t *testing.T) *installation {
	t.Helper()
	i := &installation{t: t, root: serverDir(t)}
	must(t, os.Chown(i.root, 0, 0))
	must(t, os.Chmod(i.root, 0o755))
	for _, dir := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "run/systemd/system", "etc", "fakes"} {
		must(t, os.MkdirAll(i.at(dir), 0o755))
	}
	for file, text := range map[string]string{
		"var/lib/dpkg/status": "", "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n",
	} {
		must(t, os.WriteFile(i.at(file), []byte(text), 0o644))
	}
	for _, name := range []string{"systemctl", "deb-systemd-invoke"} {
		must(t, os.WriteFile(i.at("fakes/"+name), []byte(fake), 0o755))
	}
	return i
}

// fake notes what it is asked for, and knows nothing but whether the service is active.
const fake = `#!/bin/sh
echo "${0##*/} $*" >>"$DPKG_ROOT/fakes/asked"
case "$*" in
*is-active*) test -e "$DPKG_ROOT/fakes/active" ;;
esac
`

func (i *installation) at(path string) string { return filepath.Join(i.root, path) }

// activate has systemd say from now on that the service runs.
func (i *installation) activate() {
	i.t.Helper()
	must(i.t, os.WriteFile(i.at("fakes/active"), nil, 0o644))
}

// dpkg runs it on this root, and returns what systemd was asked to do meanwhile.
func (i *installation) dpkg(args ...string) (asked string) {
	i.t.Helper()
	must(i.t, os.WriteFile(i.at("fakes/asked"), nil, 0o644))
	force := []string{"--root=" + i.root, "--force-script-chrootless", "--force-depends", "--force-unsafe-io"}
	cmd := exec.Command("dpkg", append(force, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+i.at("fakes")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		i.t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	i.said = string(out)
	return contents(i.t, i.at("fakes/asked"))
}

// edit changes the installed configuration as an operator does: the file keeps its owner and mode.
func (i *installation) edit(oldnew ...string) {
	i.t.Helper()
	file := i.at("etc/jackdaw/jackdaw.toml")
	text := contents(i.t, file)
	for n := 0; n < len(oldnew); n += 2 {
		if !strings.Contains(text, oldnew[n]) {
			i.t.Fatalf("the installed configuration has no %s:\n%s", oldnew[n], text)
		}
	}
	must(i.t, os.WriteFile(file, []byte(strings.NewReplacer(oldnew...).Replace(text)), 0o600))
}

// serve runs the service as its unit says, as far as that goes without systemd.
func (i *installation) serve() *process {
	i.t.Helper()
	unit := contents(i.t, i.at("lib/systemd/system/jackdaw.service"))
	start := regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindStringSubmatch(unit)
	service := regexp.MustCompile(`(?m)^jackdaw:x:(\d+):(\d+):`).FindStringSubmatch(contents(i.t, i.at("etc/passwd")))
	if start == nil || service == nil {
		i.t.Fatal("the unit starts nothing, or there is no service user")
	}
	uid, gid := number(i.t, service[1]), number(i.t, service[2])
	must(i.t, os.Mkdir(i.at("run/jackdaw"), 0o750))
	must(i.t, os.Chown(i.at("run/jackdaw"), uid, gid))
	words := strings.Fields(strings.ReplaceAll(start[1], " /", " "+i.root+"/"))
	cmd := exec.Command(i.at(words[0]), words[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	i.activate()
	return startProcess(i.t, i.at("log"), cmd)
}

// needPackages builds a package of each version, or skips the test where that cannot be done.
func needPackages(t *testing.T, versions ...string) (files []string) {
	t.Helper()
	if _, err := exec.LookPath("dpkg"); err != nil || os.Getuid() != 0 {
		t.Skip("packages are installed by dpkg, and by root")
	}
	dir := t.TempDir()
	for _, version := range versions {
		out := filepath.Join(dir, version)
		for _, program := range []string{"dist", "deb"} {
			cmd := exec.Command("../packaging/"+program, out)
			cmd.Env = append(os.Environ(), "VERSION="+version, "SOURCE_DATE_EPOCH=1700000000", "PLATFORMS=linux/"+runtime.GOARCH)
			if said, err := cmd.CombinedOutput(); err != nil {
				if strings.Contains(string(said), "dial tcp") {
					t.Skipf("what builds packages cannot be fetched: %s", said)
				}
				t.Fatalf("%s: %v\n%s", cmd, err, said)
			}
		}
		files = append(files, filepath.Join(out, fmt.Sprintf("jackdaw_%s_%s.deb", version, runtime.GOARCH)))
	}
	return files
}

// TestPackage: an operator installs the package, puts a certificate and a store into it, and serves; upgrades it without
// anybody noticing, and takes it away again.
func TestPackage(t *testing.T) {
	t.Parallel()
	s := startDovecot(t, "store", passwords, "anna@a.example")
	versions := needPackages(t, "1.0.0", "1.0.1")
	i := newInstallation(t)
	lint(t, versions[0])

	// It knows no certificate yet, so that nothing is started.
	asked := i.dpkg("-i", versions[0])
	if !strings.Contains(i.said, "not started yet") || strings.Contains(asked, "invoke start") {
		t.Errorf("without certificates, systemd is asked %q, and it says\n%s", asked, i.said)
	}
	if _, err := os.Lstat(i.at("etc/systemd/system/multi-user.target.wants/jackdaw.service")); err != nil {
		t.Errorf("it is not enabled: %v", err)
	}
	ca, host := newCA(t), newHost()
	certs := i.at("etc/jackdaw/certs")
	installAs(t, ca, certs, "mail.a.example", host)
	i.edit(`":993"`, fmt.Sprintf("%q", net.JoinHostPort(host, portIMAPS)), `"127.0.0.1:143"`, fmt.Sprintf("%q", s.imap()),
		"/etc/jackdaw/certs", certs, "[tls]", "[admin]\nsocket = \""+i.at("run/jackdaw/admin.sock")+"\"\n\n[tls]")
	if asked := i.dpkg("-i", versions[0]); !strings.Contains(asked, "deb-systemd-invoke start jackdaw.service") {
		t.Errorf("with a good configuration, systemd is asked\n%s\nand it says\n%s", asked, i.said)
	}

	daemon := i.serve()
	jd := &jackdaw{process: daemon, t: t, host: host, frontend: frontend{ca: ca}}
	daemon.answers(t, "tcp", jd.at(portIMAPS))
	anna := jd.login("mail.a.example", "anna@a.example")

	asked = i.dpkg("-i", versions[1])
	if strings.Contains(asked, "start") || strings.Contains(asked, "stop") {
		t.Errorf("an upgrade has systemd asked\n%s", asked)
	}
	if !strings.Contains(i.said, "has taken over from process "+fmt.Sprint(daemon.cmd.Process.Pid)) {
		t.Errorf("after an upgrade the former version goes on, and it says\n%s", i.said)
	}
	anna.ask("NOOP")
	jd.login("mail.a.example", "anna@a.example")
	if got, err := exec.Command(i.at("usr/bin/jackdaw"), "version").Output(); !strings.HasPrefix(string(got), "jackdaw 1.0.1 ") {
		t.Errorf("the installed version is %q (%v)", got, err)
	}

	i.dpkg("-i", versions[0])
	if !strings.Contains(i.said, "has taken over from process") {
		t.Errorf("on the way back the newer version goes on, and it says\n%s", i.said)
	}
	anna.ask("NOOP")

	if asked := i.dpkg("-r", "jackdaw"); !strings.Contains(asked, "deb-systemd-invoke stop jackdaw.socket jackdaw.service") {
		t.Errorf("a removal has systemd asked\n%s", asked)
	}
	i.left(map[string]bool{"usr/bin/jackdaw": false, "etc/jackdaw/jackdaw.toml": true})
	i.dpkg("-P", "jackdaw")
	i.left(map[string]bool{
		"etc/jackdaw/jackdaw.toml": false, "etc/jackdaw/certs/mail.a.example.key": true, "var/lib/jackdaw": false,
		"etc/systemd/system/multi-user.target.wants/jackdaw.service": false, "etc/letsencrypt": false,
	})
}

// installAs puts a certificate where the package expects it, as root alone may read it, and then says who else may.
func installAs(t *testing.T, ca *devca.CA, dir string, names ...string) {
	t.Helper()
	leaf, err := ca.Issue(devca.Options{Names: names})
	must(t, err)
	must(t, leaf.Write(dir, names[0]))
	must(t, os.Chmod(filepath.Join(dir, names[0]+".key"), 0o640)) // the group is the directory's
}

// left tells which paths ought to be there, and which not.
func (i *installation) left(want map[string]bool) {
	i.t.Helper()
	for path, want := range want {
		if _, err := os.Lstat(i.at(path)); (err == nil) != want {
			i.t.Errorf("%s is there: %v, want %v", path, err == nil, want)
		}
	}
}

// lint has lintian look at a package, if it is installed.
func lint(t *testing.T, file string) {
	t.Helper()
	if _, err := exec.LookPath("lintian"); err != nil {
		t.Log("lintian is not installed: the package is not looked at")
		return
	}
	if out, err := exec.Command("lintian", "--allow-root", "--fail-on", "error", file).CombinedOutput(); err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}

// TestUnit: the unit gives the daemon little that it could do harm with, and systemd understands it.
func TestUnit(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("there is no systemd-analyze here")
	}
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "etc/systemd/system"), 0o755))
	for _, unit := range []string{"jackdaw.service", "jackdaw.socket"} {
		keep(t, filepath.Join(root, "etc/systemd/system", unit), contents(t, "../packaging/systemd/"+unit))
	}
	dropIn := filepath.Join(root, "etc/systemd/system/jackdaw.service.d")
	must(t, os.Mkdir(dropIn, 0o755))
	keep(t, filepath.Join(dropIn, "postfix.conf"), contents(t, "../packaging/systemd/postfix.conf"))
	cmd := exec.Command("systemd-analyze", "security", "--offline=yes", "--root="+root, "--threshold=20", "jackdaw.service")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", cmd, err, out)
	}
	// Everything else that a system has is missing here.
	cmd = exec.Command("systemd-analyze", "verify", "--man=no", "--root="+root, "jackdaw.service", "jackdaw.socket")
	out, _ := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "nknown") || strings.Contains(line, "nvalid") || strings.Contains(line, "arse") {
			t.Errorf("systemd does not understand the units: %s", line)
		}
	}
}

// TestCertbot: what certbot keeps for root alone, the daemon's user may read after what check advises, and what is issued later
// after certbot's call of the hook.
func TestCertbot(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can give files to others")
	}
	needServers(t) // who make the servant
	ca, dir, service := newCA(t), serverDir(t), servant(t)
	group := groupOf(t, service)
	must(t, os.Chmod(dir, 0o755))
	certbot, config := filepath.Join(dir, "letsencrypt"), filepath.Join(dir, "jackdaw.toml")
	lineage(t, ca, certbot, "mail.a.example")
	lineage(t, ca, certbot, "mail.b.example")
	hook := installHook(t, certbot, group, config)
	program := built(t)
	check := func() (string, error) {
		out, err := exec.Command(program, "check", "-c", config, "--as-user", service.Username).Output()
		return string(out), err
	}

	// A configuration that does not name the directory gives nothing away.
	write(t, config, "")
	must(t, exec.Command(hook).Run())
	write(t, config, fmt.Sprintf("listen.imaps = \"127.0.0.1:10993\"\ntls.certificates = [%q]\ntls.default = \"\"\n"+
		"[[backend]]\nname = \"store\"\nimap = \"127.0.0.1:143\"\n", certbot+"/live"))
	said, err := check()
	if err == nil || !strings.Contains(said, "; run "+hook+"\n") {
		t.Fatalf("check does not advise the hook (%v):\n%s", err, said)
	}
	must(t, exec.Command(hook).Run())
	if said, err := check(); err != nil {
		t.Errorf("after the hook, check says\n%s", said)
	}

	// The next is issued, and certbot calls the hook.
	lineage(t, ca, certbot, "mail.c.example")
	if _, err := check(); err == nil {
		t.Error("a new key can be read at once")
	}
	cmd := exec.Command(hook)
	cmd.Env = append(os.Environ(), "RENEWED_LINEAGE="+certbot+"/live/mail.c.example", "RENEWED_DOMAINS=mail.c.example")
	must(t, cmd.Run())
	if said, err := check(); err != nil {
		t.Errorf("after certbot has called the hook, check says\n%s", said)
	}
	info, err := os.Stat(certbot + "/archive/mail.c.example/privkey1.pem")
	must(t, err)
	if info.Mode().Perm() != 0o640 {
		t.Errorf("the key has mode %o, want 640", info.Mode().Perm())
	}
}

// installHook puts the package's hook where certbot looks for it, for another group and configuration than the package's.
func installHook(t *testing.T, certbot, group, config string) (hook string) {
	t.Helper()
	hook = filepath.Join(certbot, "renewal-hooks/deploy/jackdaw")
	must(t, os.MkdirAll(filepath.Dir(hook), 0o755))
	text := strings.NewReplacer("chgrp jackdaw", "chgrp "+group, "root | jackdaw", "root | "+group,
		"/etc/jackdaw/jackdaw.toml", config).Replace(contents(t, "../packaging/certbot-hook"))
	must(t, os.WriteFile(hook, []byte(text), 0o755))
	return hook
}

// lineage lays out a certificate as certbot does.
func lineage(t *testing.T, ca *devca.CA, dir, name string) {
	t.Helper()
	live, archive := filepath.Join(dir, "live", name), filepath.Join(dir, "archive", name)
	for _, path := range []string{live, archive} {
		must(t, os.MkdirAll(path, 0o755))
		must(t, os.Chmod(path, 0o755))
		must(t, os.Chmod(filepath.Dir(path), 0o700))
	}
	leaf, err := ca.Issue(devca.Options{Names: []string{name}})
	must(t, err)
	must(t, leaf.Write(archive, name))
	for file, written := range map[string]string{"fullchain": name + ".crt", "privkey": name + ".key"} {
		must(t, os.Rename(filepath.Join(archive, written), filepath.Join(archive, file+"1.pem")))
		must(t, os.Symlink("../../archive/"+name+"/"+file+"1.pem", filepath.Join(live, file+".pem")))
	}
	must(t, os.Chmod(filepath.Join(archive, "privkey1.pem"), 0o600))
}

// TestFail2ban: the filter finds who was refused in what jackdaw logs, in both formats, as a file and behind what a system's log
// puts in front, and nobody whom a client only speaks of.
func TestFail2ban(t *testing.T) {
	regex := needFail2ban(t)
	s := startDovecot(t, "store", passwords, "anna@a.example")
	for _, format := range []string{"json", "console"} {
		t.Run(format, func(t *testing.T) {
			jd := startJackdaw(t, s.backend(), fmt.Sprintf(`
[[route]]
domain = "b.example"
to = "dead"
[[route]]
to = "store"
[[backend]]
name = "dead"
imap = "%s:1"
[log]
format = %q
`, newHost(), format))
			guesser := newHost()
			liar := `"x\",\"client\":\"192.0.2.1\",\"y\":\""`
			for _, user := range []string{"anna@a.example", `"192.0.2.1"`, liar, "bert@b.example"} {
				d := dialFrom(t, guesser, "tcp", jd.at(portIMAPS))
				d.handshake(jd.tls("mail.a.example"))
				d.expect("* OK ")
				if _, status := d.command("LOGIN " + user + " wrong"); !strings.HasPrefix(status, "NO") {
					t.Errorf("%s: the login is answered by %q", user, status)
				}
			}
			jd.login("mail.a.example", "anna@a.example")
			jd.loggedTimes(t, 4, "login failed") // and the last was nobody's fault
			for _, prefix := range []string{"", "mail jackdaw[4711]: "} {
				file := filepath.Join(t.TempDir(), "log")
				var lines strings.Builder
				for line := range strings.Lines(jd.Log()) {
					lines.WriteString(prefix + line)
				}
				write(t, file, lines.String())
				if got, want := regex(t, file), []string{guesser, guesser, guesser}; !slices.Equal(got, want) {
					t.Errorf("behind %q fail2ban finds %q, want %q in\n%s", prefix, got, want, jd.Log())
				}
			}
		})
	}
}

// needFail2ban returns what lists the addresses that the filter finds in a log.
func needFail2ban(t *testing.T) func(t *testing.T, log string) []string {
	t.Helper()
	root := filepath.Join(needServers(t), "fail2ban")
	program, modules := filepath.Join(root, "usr/bin/fail2ban-regex"), filepath.Join(root, "usr/lib/python3/dist-packages")
	filter, err := filepath.Abs("../packaging/fail2ban/filter.conf")
	if err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T, log string) []string {
		cmd := exec.Command(program, "-c", filepath.Join(root, "etc/fail2ban"), "-o", "ip", log, filter)
		cmd.Env = append(os.Environ(), "PYTHONPATH="+modules, "PYTHONDONTWRITEBYTECODE=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		return strings.Fields(string(out))
	}
}
