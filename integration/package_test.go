package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFail2ban: the filter finds who was refused in what jackdaw logs, in both formats, as a file and behind what a system's log puts
// in front, and nobody whom a client only speaks of.
func TestFail2ban(t *testing.T) {
	regex := needFail2ban(t)
	s := startDovecot(t, "store", passwords, "anna@a.example")
	for _, format := range []string{"json", "console"} {
		t.Run(format, func(t *testing.T) {
			jd := startJackdaw(t, s.backend(), fmt.Sprintf("[log]\nformat = %q", format))
			guesser := newHost()
			for _, user := range []string{`anna@a.example`, `"192.0.2.1"`, `"x\",\"client\":\"192.0.2.1\",\"y\":\""`} {
				d := dialFrom(t, guesser, "tcp", jd.at(portIMAPS))
				d.handshake(jd.tls("mail.a.example"))
				d.expect("* OK ")
				if _, status := d.command("LOGIN " + user + " wrong"); !strings.HasPrefix(status, "NO") {
					t.Errorf("%s: the login is answered by %q", user, status)
				}
			}
			jd.login("mail.a.example", "anna@a.example")
			jd.loggedTimes(t, 3, "login failed")
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
	filter, err := filepath.Abs("../packaging/fail2ban/filter.conf")
	if err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T, log string) []string {
		cmd := exec.Command(filepath.Join(root, "usr/bin/fail2ban-regex"), "-c", filepath.Join(root, "etc/fail2ban"), "-o", "ip", log, filter)
		cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(root, "usr/lib/python3/dist-packages"), "PYTHONDONTWRITEBYTECODE=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		return strings.Fields(string(out))
	}
}
