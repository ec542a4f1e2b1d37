package main

import (
	"cmp"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strings"
)

// dovecotText is Dovecot's proxy in what its documentation calls the high performance mode: one login process for all clients,
// which stays. Everybody's mail is at the one store, for which the password is good that the client says. It serves nothing but
// what is measured.
const dovecotText = `base_dir = $dir/run
state_dir = $dir
log_path = $dir/errors
info_log_path = /dev/null
default_internal_user = $internal
default_internal_group = $group
default_login_user = $login
protocols = $protocol
hostname = mail.bench.example
auth_mechanisms = plain
auth_failure_delay = 0
passdb {
  driver = static
  args = proxy=y nopassword=y host=$host port=$port
}
ssl = required
ssl_cert = <$dir/mail.crt
ssl_key = <$dir/mail.key
ssl_min_protocol = TLSv1.2
ssl_cipher_suites = TLS_AES_128_GCM_SHA256
ssl_cipher_list = ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256
ssl_curve_list = X25519:prime256v1
ssl_prefer_server_ciphers = yes
service auth {
  client_limit = 20000
}
service anvil {
  chroot =
  client_limit = 20000
}
service stats {
  chroot =
  client_limit = 20000
}
service $name-login {
  chroot =
  service_count = 0
  process_min_avail = 1
  process_limit = 1
  client_limit = 9500
  vsz_limit = 4G
  inet_listener $protocol {
    port = 0
  }
  inet_listener ${protocol}s {
    port = 0
  }
  inet_listener measured {
    address = 127.0.0.1
    port = $listen
    ssl = $implicit
  }
}
`

func dovecotConfig(t *trial) ([]string, error) {
	service := scriptFor(t.service)
	values := map[string]string{"protocol": service.protocol, "name": service.protocol, "implicit": "no"}
	if service.protocol == "sieve" {
		values["name"] = "managesieve"
	}
	if service.start == nil {
		values["implicit"] = "yes"
	}
	_, values["listen"], _ = net.SplitHostPort(t.addresses[t.service])
	values["host"], values["port"], _ = net.SplitHostPort(t.stores[service.protocol])
	internal, login, err := dovecotUsers()
	if err != nil {
		return nil, err
	}
	group, err := user.LookupGroupId(internal.Gid)
	if err != nil {
		return nil, err
	}
	values["internal"], values["login"], values["group"] = internal.Username, login.Username, group.Name
	// Its processes run as other users.
	if err := cmp.Or(os.Chmod(t.dir, 0o755), t.leaf.Write(t.dir, "mail")); err != nil {
		return nil, err
	}
	return []string{"-F", "-c", t.file("dovecot.conf")}, t.write("dovecot.conf", t.fill(dovecotText, values))
}

// dovecotUsers are those that its package has made, for root, who must not be one of them; anybody else is both.
func dovecotUsers() (internal, login *user.User, err error) {
	if os.Getuid() != 0 {
		internal, err = user.Current()
		return internal, internal, err
	}
	if internal, err = user.Lookup("dovecot"); err != nil {
		return nil, nil, err
	}
	login, err = user.Lookup("dovenull")
	return internal, login, err
}

func dovecotVersion(program string) string {
	said, _ := exec.Command(program, "--version").Output()
	version, _, _ := strings.Cut(strings.TrimSpace(string(said)), " ")
	return "Dovecot " + version
}
