package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strings"
)

// dovecotConfig is Dovecot's proxy in what its documentation calls the high performance mode: one login process for all
// clients, which stays. Everybody's mail is at the one store, for which the password is good that the client says.
func dovecotConfig(t *trial) ([]string, error) {
	if _, err := t.write("cert.pem", string(t.leaf.ChainPEM)); err != nil {
		return nil, err
	}
	if _, err := t.write("key.pem", string(t.leaf.KeyPEM)); err != nil {
		return nil, err
	}
	internal, login, err := dovecotUsers()
	if err != nil {
		return nil, err
	}
	service := scriptFor(t.service)
	host, port, err := net.SplitHostPort(t.stores[service.protocol])
	if err != nil {
		return nil, err
	}
	name, tls := strings.TrimSuffix(strings.ReplaceAll(service.protocol, "sieve", "managesieve"), "s"), "no"
	if service.start == nil {
		tls = "yes"
	}
	if err := os.Chmod(t.dir, 0o755); err != nil { // its processes run as other users
		return nil, err
	}
	file, err := t.write("dovecot.conf", fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s
log_path = %[1]s/errors
info_log_path = /dev/null
default_internal_user = %[2]s
default_login_user = %[3]s
default_internal_group = %[4]s
protocols = %[5]s
hostname = mail.bench.example
auth_mechanisms = plain
passdb {
  driver = static
  args = proxy=y nopassword=y host=%[6]s port=%[7]s
}
ssl = required
ssl_cert = <%[1]s/cert.pem
ssl_key = <%[1]s/key.pem
ssl_min_protocol = TLSv1.2
ssl_cipher_suites = TLS_AES_128_GCM_SHA256
ssl_cipher_list = ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256
ssl_curve_list = X25519:prime256v1
ssl_prefer_server_ciphers = yes
auth_failure_delay = 0
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
service %[8]s-login {
  chroot =
  service_count = 0
  process_min_avail = 1
  process_limit = 1
  client_limit = 9500
  vsz_limit = 4G
  inet_listener %[9]s {
    address = 127.0.0.1
    port = %[10]s
    ssl = %[11]s
  }
`, t.dir, internal.Username, login.Username, groupOf(internal), strings.TrimPrefix(name, "manage"), host, port, name,
		t.service, portOf(t.addresses[t.service]), tls)+dovecotSilent(t.service))
	return []string{"-F", "-c", file}, err
}

// dovecotSilent closes the listeners that a login service has by default, and ends the block.
func dovecotSilent(service string) string {
	var b strings.Builder
	for _, name := range map[string][]string{
		"imap": {"imaps"}, "imaps": {"imap"}, "pop3s": {"pop3"}, "submission": {"submissions"}, "sieve": nil,
	}[service] {
		fmt.Fprintf(&b, "  inet_listener %s {\n    port = 0\n  }\n", name)
	}
	return b.String() + "}\n"
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
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

func groupOf(u *user.User) string {
	if group, err := user.LookupGroupId(u.Gid); err == nil {
		return group.Name
	}
	return u.Gid
}

func dovecotVersion(program string) string {
	said, _ := exec.Command(program, "--version").Output()
	version, _, _ := strings.Cut(strings.TrimSpace(string(said)), " ")
	return "Dovecot " + version
}
