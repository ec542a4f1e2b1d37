package integration

import (
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// certbot runs certbot, with directories of its own and an authority, and returns what it says.
func (a *authority) certbot(dir string, args ...string) string {
	a.t.Helper()
	args = append(args, "--non-interactive", "--agree-tos", "--register-unsafely-without-email", "--no-random-sleep-on-renew",
		"--server", "https://"+a.at(portACME)+"/dir", "--standalone", "--http-01-address", a.host, "--http-01-port", portHTTP,
		"--config-dir", dir, "--work-dir", filepath.Join(dir, "work"), "--logs-dir", filepath.Join(dir, "logs"))
	cmd := exec.Command("certbot", args...)
	cmd.Env = append(os.Environ(), "REQUESTS_CA_BUNDLE="+a.caFile(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		a.t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// TestCertbotRenews: certbot itself orders and renews, as root, and the daemon, which is not root, serves what it has got: at first
// after the hook by hand, and a renewed one by certbot's own call of it.
func TestCertbotRenews(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can give files to others")
	}
	const name = "mail.certbot.example"
	// certbot gives up when a nonce is refused twice in a row, which is no matter of this test.
	a := pebble{lenient: true}.start(t, "127.0.0.1")
	a.lead(name, a.host)
	service, dir := servant(t), serverDir(t)
	must(t, os.Chmod(dir, 0o755))
	etc := filepath.Join(dir, "letsencrypt")
	jd := frontend{servant: true}.start(t, elsewhere)
	jd.certificates = fmt.Sprintf("%q", etc+"/live")
	jd.configure(elsewhere)
	hook := installHook(t, etc, groupOf(t, service), jd.file)

	said := a.certbot(etc, "certonly", "-d", name)
	live := filepath.Join(etc, "live", name, "fullchain.pem")
	if !strings.Contains(said, live) {
		t.Fatalf("certbot says\n%s", said)
	}
	must(t, exec.Command(hook).Run())
	jd.reload(elsewhere)
	roots := a.roots()
	first := jd.certified(roots, name)

	a.certbot(etc, "renew", "--force-renewal")
	var second *x509.Certificate
	eventually(t, "the renewed certificate", func() bool {
		second = jd.shownBy(roots, name)
		return second != nil && second.SerialNumber.Cmp(first.SerialNumber) != 0
	})
	key, err := os.Stat(filepath.Join(etc, "archive", name, "privkey2.pem"))
	must(t, err)
	if key.Mode().Perm() != 0o640 {
		t.Errorf("the renewed key has mode %o, want 640", key.Mode().Perm())
	}
}
