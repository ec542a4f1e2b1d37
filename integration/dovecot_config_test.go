package integration

import (
	"fmt"
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
		return dovecotServices + dovecotListeners("address") + dovecot23 + dovecot23Passdb[asks]
	}
	return dovecot24Version + dovecotServices + dovecotListeners("listen") + dovecot24 + dovecot24Passdb[asks]
}

// Everything runs as one user without privileges. Refusals come at once: Dovecot's delays and penalties would take all of
// jackdaw's clients for one. Who connects from 127.0.0.1, as jackdaw does unless told otherwise, is believed what it says of
// the client; other loopback addresses are strangers.
const dovecotServices = `
base_dir = $dir/run
state_dir = $dir
log_path = /dev/stderr
hostname = $name.example
ssl = yes
auth_failure_delay = 0
auth_master_user_separator = *
login_trusted_networks = 127.0.0.1
haproxy_trusted_networks = 127.0.0.1
submission_relay_host = $relayhost
submission_relay_port = $relayport
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
service auth {
  unix_listener $dir/auth {
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

// dovecotListeners has every service on its port, once more on the address for PROXY headers, and on a socket. The setting
// for an address has another name in each version.
func dovecotListeners(address string) string {
	var b strings.Builder
	service := func(name, more, socket string, ports ...string) {
		fmt.Fprintf(&b, "service %s {\n  %s\n", name, more)
		for _, port := range ports {
			tls := "no"
			if strings.HasSuffix(port, "s") {
				tls = "yes"
			}
			fmt.Fprintf(&b, "  inet_listener %[1]s {\n    %[2]s = $host\n    port = $%[1]s\n    ssl = %[3]s\n  }\n"+
				"  inet_listener %[1]s-proxied {\n    %[2]s = $proxied\n    port = $%[1]s\n    ssl = %[3]s\n    haproxy = yes\n  }\n",
				port, address, tls)
		}
		fmt.Fprintf(&b, "  unix_listener $dir/%s {\n    mode = 0666\n  }\n}\n", socket)
	}
	service("imap-login", "chroot =", "imap", "imap", "imaps")
	service("pop3-login", "chroot =", "pop3", "pop3", "pop3s")
	service("submission-login", "chroot =", "submission", "submission", "submissions")
	service("managesieve-login", "chroot =", "sieve", "sieve")
	service("lmtp", "user = $user", "lmtp", "lmtp")
	return b.String()
}

const dovecot23 = `
protocols = imap pop3 submission sieve lmtp
auth_mechanisms = plain login scram-sha-1 scram-sha-256
disable_plaintext_auth = no
ssl_cert = <$dir/store.crt
ssl_key = <$dir/store.key
mail_location = maildir:~/mail
mail_plugins = quota
plugin {
  quota = count:User quota
  quota_vsizes = yes
}
`

var dovecot23Passdb = map[passdb]string{
	passwords: `
passdb {
  driver = passwd-file
  args = $dir/masters
  master = yes
  result_success = continue
}
passdb {
  driver = passwd-file
  args = $dir/users
}
userdb {
  driver = passwd-file
  args = $dir/users
  override_fields = home=$dir/home/%u
}
`,
	anything: `
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = home=$dir/home/%u
}
`,
	anythingForUsers: `
passdb {
  driver = passwd-file
  args = $dir/open
}
userdb {
  driver = static
  args = home=$dir/home/%u
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
  pop3 = yes
  submission = yes
  sieve = yes
  lmtp = yes
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
mail_plugins {
  quota = yes
}
quota user {
  storage_grace = 0
}
`

var dovecot24Passdb = map[passdb]string{
	passwords: `
passdb masters {
  driver = passwd-file
  passwd_file_path = $dir/masters
  master = yes
  result_success = continue
}
passdb passwd-file {
  passwd_file_path = $dir/users
}
userdb passwd-file {
  passwd_file_path = $dir/users
  fields {
    home = $dir/home/%{user}
  }
}
`,
	anything: `
passdb static {
  fields {
    nopassword = yes
  }
}
userdb static {
  fields {
    home = $dir/home/%{user}
  }
}
`,
	anythingForUsers: `
passdb passwd-file {
  passwd_file_path = $dir/open
}
userdb static {
  fields {
    home = $dir/home/%{user}
  }
}
`,
}
