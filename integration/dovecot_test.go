package integration

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What a Dovecot asks before it lets somebody in.
const (
	passwords = "driver = passwd-file\n args = $dir/users"
	// anything lets everybody in as anybody.
	anything = "driver = static\n args = nopassword=y"
	// anythingForUsers lets everybody in as any user there is, and refuses a name that it does not know.
	anythingForUsers = "driver = passwd-file\n args = $dir/open"
)

// startDovecot runs a Dovecot with IMAP and ManageSieve in the clear, until the test ends.
func startDovecot(t testing.TB, name, passdb string, users ...string) *store {
	t.Helper()
	needServers(t)
	s := &store{name: name, host: newHost(), user: "{user}"}
	dir := serverDir(t)
	closed, open := new(strings.Builder), new(strings.Builder)
	for _, user := range users {
		fmt.Fprintf(closed, "%s:{PLAIN}%s\n", user, password)
		fmt.Fprintf(open, "%s:::::::nopassword=y\n", user)
	}
	write(t, filepath.Join(dir, "users"), closed.String())
	write(t, filepath.Join(dir, "open"), open.String())
	config := filepath.Join(dir, "dovecot.conf")
	write(t, config, expand(dovecotConfig+"passdb {\n "+passdb+"\n}\n", map[string]string{
		"dir": dir, "host": s.host, "imap": portIMAP, "sieve": portSieve, "folder": s.folder(),
		"user": servant(t).Username, "group": groupOf(t, servant(t)),
	}))
	s.launch = func() *process {
		p := startProcess(t, filepath.Join(dir, "log"), asServant(t, exec.Command("dovecot", "-F", "-c", config)))
		p.answers(t, "tcp", s.imap())
		p.answers(t, "tcp", s.sieve())
		return p
	}
	s.restart()
	return s
}

// Everything runs as one user without privileges. Refusals come at once: Dovecot's delays and penalties would take all of
// jackdaw's clients for one.
const dovecotConfig = `
protocols = imap sieve
listen = $host
base_dir = $dir/run
state_dir = $dir
log_path = /dev/stderr
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login scram-sha-1 scram-sha-256
auth_failure_delay = 0
default_internal_user = $user
default_internal_group = $group
default_login_user = $user
mail_uid = $user
mail_gid = $group
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:~/mail
namespace inbox {
  inbox = yes
  mailbox $folder {
    auto = create
  }
}
userdb {
  driver = static
  args = home=$dir/home/%u
}
service imap-login {
  chroot =
  inet_listener imap {
    port = $imap
  }
  inet_listener imaps {
    port = 0
  }
}
service managesieve-login {
  chroot =
  inet_listener sieve {
    port = $sieve
  }
}
service anvil {
  chroot =
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service stats {
  chroot =
}
`
