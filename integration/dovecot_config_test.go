package integration

import (
	"strings"
	"testing"
)

// passdb is what a Dovecot asks before it lets somebody in.
type passdb int

const (
	passwords        passdb = iota
	anything                // lets everybody in as anybody
	anythingForUsers        // lets everybody in as any user there is, and refuses a name that it does not know
)

// dovecotConfig is written for the Dovecot that is there: version 2.4 has a syntax of its own.
func dovecotConfig(t testing.TB, asks passdb) string {
	t.Helper()
	if strings.HasPrefix(tool(t, "", "dovecot", "--version"), "2.3.") {
		return dovecotServices + dovecot23 + dovecot23Passdb[asks]
	}
	return dovecot24Version + dovecotServices + dovecot24 + dovecot24Passdb[asks]
}

// Everything runs as one user without privileges. Refusals come at once: Dovecot's delays and penalties would take all of
// jackdaw's clients for one.
const dovecotServices = `
listen = $host
base_dir = $dir/run
state_dir = $dir
log_path = /dev/stderr
ssl = yes
auth_failure_delay = 0
default_internal_user = $user
default_internal_group = $group
default_login_user = $user
mail_uid = $user
mail_gid = $group
first_valid_uid = 1
first_valid_gid = 1
namespace inbox {
  inbox = yes
  mailbox $folder {
    auto = create
  }
}
service imap-login {
  chroot =
  inet_listener imap {
    port = $imap
  }
  inet_listener imaps {
    port = $imaps
  }
  unix_listener $dir/imap {
    mode = 0666
  }
}
service managesieve-login {
  chroot =
  inet_listener sieve {
    port = $sieve
  }
  unix_listener $dir/sieve {
    mode = 0666
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

const dovecot23 = `
protocols = imap sieve
auth_mechanisms = plain login scram-sha-1 scram-sha-256
disable_plaintext_auth = no
ssl_cert = <$dir/store.crt
ssl_key = <$dir/store.key
mail_location = maildir:~/mail
userdb {
  driver = static
  args = home=$dir/home/%u
}
`

var dovecot23Passdb = map[passdb]string{
	passwords: `
passdb {
  driver = passwd-file
  args = $dir/users
}
`,
	anything: `
passdb {
  driver = static
  args = nopassword=y
}
`,
	anythingForUsers: `
passdb {
  driver = passwd-file
  args = $dir/open
}
`,
}

const dovecot24Version = `
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
`

const dovecot24 = `
protocols {
  imap = yes
  sieve = yes
}
auth_mechanisms {
  plain = yes
  login = yes
  scram-sha-1 = yes
  scram-sha-256 = yes
}
auth_allow_cleartext = yes
ssl_server_cert_file = $dir/store.crt
ssl_server_key_file = $dir/store.key
mail_driver = maildir
mail_path = ~/mail
userdb static {
  fields {
    home = $dir/home/%{user}
  }
}
`

var dovecot24Passdb = map[passdb]string{
	passwords: `
passdb passwd-file {
  passwd_file_path = $dir/users
}
`,
	anything: `
passdb static {
  fields {
    nopassword = yes
  }
}
`,
	anythingForUsers: `
passdb passwd-file {
  passwd_file_path = $dir/open
}
`,
}
