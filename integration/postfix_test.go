package integration

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// postfix is what a Postfix can be like. The zero value lets nobody log in, and keeps what it gets.
type postfix struct {
	sasl  string // who checks passwords: dovecotSASL or cyrusSASL
	lmtp  string // where mail goes, in Postfix's words: inet:host:port or unix:path
	extra string // more lines for main.cf
}

// dovecotSASL has Postfix ask a Dovecot.
func dovecotSASL(s *store) string {
	return "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = " + s.dir + "/auth\n"
}

// cyrusSASL has Postfix ask saslauthd, by way of Cyrus' library.
const cyrusSASL = "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = cyrus\ncyrus_sasl_config_path = $dir/conf/sasl\n"

// saslLibrary is for the library, which knows of saslauthd's socket only.
const saslLibrary = `
pwcheck_method: saslauthd
saslauthd_path: $dir/mux
mech_list: PLAIN LOGIN
`

// start runs a Postfix until the test ends. Who has logged in may send any mail anywhere; on the port for SMTP everybody
// may. It takes submissions in the clear, with STARTTLS and within TLS; its certificate is for store.example. From
// 127.0.0.1, as jackdaw connects unless told otherwise, it takes XCLIENT.
func (v postfix) start(t testing.TB, name string) *store {
	t.Helper()
	tree := filepath.Join(needServers(t), "postfix")
	if os.Getuid() != 0 {
		t.Skip("Postfix's master needs to be root, to hand its privileges on piece by piece")
	}
	s := &store{
		name: name, dir: serverDir(t), host: newHost(), proxied: newHost(), user: "{user}", services: []string{"submission"},
	}
	values := map[string]string{
		"name": name, "dir": s.dir, "host": s.host, "proxied": s.proxied,
		"commands": filepath.Join(tree, "usr/sbin"),
		"daemons":  filepath.Join(tree, "usr/lib/postfix/sbin"), "libraries": filepath.Join(tree, "usr/lib/postfix"),
		"user": servant(t).Username, "uid": servant(t).Uid, "gid": servant(t).Gid,
		"transport": "virtual",
	}
	values["sasl"] = expand(v.sasl, values)
	if v.lmtp != "" {
		values["transport"] = "lmtp:" + v.lmtp
	}
	maps.Copy(values, ports())
	postfixDirectories(t, s.dir)
	certifyStore(t, s.dir)
	config := filepath.Join(s.dir, "conf")
	write(t, filepath.Join(config, "main.cf"), expand(mainCF+v.extra, values))
	write(t, filepath.Join(config, "master.cf"), expand(masterCF, values))
	write(t, filepath.Join(config, "sasl/smtpd.conf"), expand(saslLibrary, values))
	s.launch = func() *process {
		// Its own command would check, repair and detach; the master alone does what is needed.
		cmd := exec.Command(filepath.Join(values["daemons"], "master"), "-d", "-c", config)
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+values["libraries"])
		p := startProcess(t, filepath.Join(s.dir, "log"), cmd)
		p.answers(t, "tcp", s.submission())
		return p
	}
	s.restart()
	return s
}

// postfixDirectories makes what Postfix's own command would make.
func postfixDirectories(t testing.TB, dir string) {
	t.Helper()
	for _, sub := range []string{"conf", "conf/sasl", "data", "mail", "queue"} {
		mustMkdir(t, filepath.Join(dir, sub), 0o755)
	}
	give(t, filepath.Join(dir, "data"))
	give(t, filepath.Join(dir, "mail"))
	for _, sub := range strings.Fields("active bounce corrupt defer deferred flush hold incoming private saved trace maildrop public") {
		mustMkdir(t, filepath.Join(dir, "queue", sub), 0o700)
		give(t, filepath.Join(dir, "queue", sub))
	}
	mustMkdir(t, filepath.Join(dir, "queue/pid"), 0o755)
}

func mustMkdir(t testing.TB, dir string, mode os.FileMode) {
	t.Helper()
	if err := os.Mkdir(dir, mode); err != nil {
		t.Fatal(err)
	}
}

// received waits for a message in a Postfix's own mailbox, where all of its recipients have theirs, that has all the words.
func (s *store) received(t testing.TB, words ...string) (message string) {
	t.Helper()
	eventually(t, "a message with "+strconv.Quote(strings.Join(words, ", ")), func() bool {
		files, _ := filepath.Glob(filepath.Join(s.dir, "mail/all/new/*"))
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if containsAll(string(text), words) {
				message = string(text)
				return true
			}
		}
		return false
	})
	return message
}

func containsAll(text string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}

// What a deferred recipient waits for is seconds. The group must be nobody's main one, and is not used: nothing is
// submitted by command.
const mainCF = `
compatibility_level = 3.6
queue_directory = $dir/queue
data_directory = $dir/data
command_directory = $commands
daemon_directory = $daemons
shlib_directory = $libraries
import_environment = MAIL_CONFIG MAIL_LOGTAG LANG=C POSTLOG_SERVICE LD_LIBRARY_PATH
mail_owner = $user
setgid_group = games
maillog_file = $dir/log
maillog_file_prefixes = $dir
myhostname = $name.example
inet_interfaces = all
mydestination =
mynetworks =
alias_maps =
smtpd_tls_cert_file = $dir/store.crt
smtpd_tls_key_file = $dir/store.key
smtpd_tls_security_level = may
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_authorized_xclient_hosts = 127.0.0.1
smtpd_error_sleep_time = 0
virtual_mailbox_domains = static:all
virtual_mailbox_maps = static:all/
virtual_mailbox_base = $dir/mail
virtual_transport = $transport
virtual_uid_maps = static:$uid
virtual_gid_maps = static:$gid
virtual_minimum_uid = 1
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 2s
transport_retry_time = 1s
$sasl
`

// The queue manager is woken up each second: it leaves mail in the incoming queue that is still being deferred when it looks,
// and nothing else brings it back to that.
const masterCF = `
$host:$submission inet n - n - - smtpd
$host:$submissions inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
$host:$smtp inet n - n - - smtpd
  -o smtpd_recipient_restrictions=permit
$proxied:$submission inet n - n - - smtpd
  -o smtpd_upstream_proxy_protocol=haproxy
anvil unix - - n - 1 anvil
bounce unix - - n - 0 bounce
cleanup unix n - n - 0 cleanup
defer unix - - n - 0 bounce
error unix - - n - - error
lmtp unix - - n - - lmtp
postlog unix-dgram n - n - 1 postlogd
proxymap unix - - n - - proxymap
qmgr unix n - n 1 1 qmgr
retry unix - - n - - error
rewrite unix - - n - - trivial-rewrite
scache unix - - n - 1 scache
smtp unix - - n - - smtp
tlsmgr unix - - n 1000? 1 tlsmgr
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
virtual unix - n n - - virtual
`
