package integration

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"jackdaw/internal/devca"
)

// cyrusKind is what a Cyrus can be like.
type cyrusKind struct {
	host       string // its address; default: a new one
	servername string // default: cyrusDomain
	extra      string // more lines for imapd.conf
}

// startCyrus runs a Cyrus until the test ends. It has IMAP, POP3 and ManageSieve in the clear and with STARTTLS, POP3 within
// TLS, and LMTP on a socket, where everybody may deliver, and on TCP, where that takes a login as lmtpUser. A user whose name
// has a domain makes it one for several domains.
func startCyrus(t testing.TB, name string, users ...string) *store {
	t.Helper()
	return cyrusKind{}.start(t, name, users...)
}

func (k cyrusKind) start(t testing.TB, name string, users ...string) *store {
	t.Helper()
	if k.host == "" {
		k.host = newHost()
	}
	c := &cyrus{
		tree:       filepath.Join(needServers(t), "cyrus"),
		servername: cmp.Or(k.servername, cyrusDomain),
		store: &store{
			name: name, dir: serverDir(t), host: k.host, user: "{local}", services: []string{"imap", "sieve"},
		},
	}
	domains := "off"
	if strings.Contains(strings.Join(users, " "), "@") {
		c.store.user, domains = "{user}", "userid"
	}
	for _, sub := range []string{"conf", "conf/socket", "spool", "sieve"} {
		if err := os.Mkdir(filepath.Join(c.dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
		give(t, filepath.Join(c.dir, sub))
	}
	values := map[string]string{
		"dir": c.dir, "bin": c.bin(""), "host": c.host, "domain": cyrusDomain, "name": c.servername, "domains": domains,
		"proxy": proxyUser, "lmtpuser": lmtpUser,
	}
	maps.Copy(values, ports())
	ca, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(devca.Options{Names: []string{cyrusDomain}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, c.file("cert.pem"), string(leaf.ChainPEM))
	write(t, c.file("key.pem"), string(leaf.KeyPEM))
	write(t, c.file("imapd.conf"), expand(imapdConfig+k.extra, values))
	write(t, c.file("cyrus.conf"), expand(cyrusConfig, values))
	for _, user := range append(users, "cyrus") {
		c.addPassword(t, user, password)
	}
	c.addPassword(t, proxyUser, proxyPassword)
	c.addPassword(t, lmtpUser, proxyPassword)
	c.launch = func() *process { return c.run(t) }
	c.restart()
	c.addMailboxes(t, users)
	return c.store
}

// cyrusDomain is the one of users that have none.
const cyrusDomain = "cyrus.example"

// Paths are given wherever Cyrus has one compiled in, for its packages were only unpacked.
const imapdConfig = `
configdirectory: $dir/conf
defaultpartition: default
partition-default: $dir/spool
sievedir: $dir/sieve
sendmail: /bin/false
servername: $name
defaultdomain: $domain
virtdomains: $domains
unixhierarchysep: yes
admins: cyrus
proxyservers: $proxy
lmtp_admins: $lmtpuser
allowplaintext: yes
failedloginpause: 0
tls_server_cert: $dir/cert.pem
tls_server_key: $dir/key.pem
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: $dir/sasldb2
sasl_mech_list: PLAIN LOGIN SCRAM-SHA-1 SCRAM-SHA-256
`

const cyrusConfig = `
START {
  recover cmd="$bin/ctl_cyrusdb -C $dir/imapd.conf -r"
  idled cmd="$bin/idled -C $dir/imapd.conf"
}
SERVICES {
  imap cmd="$bin/imapd -C $dir/imapd.conf" listen="$host:$imap" prefork=0
  sieve cmd="$bin/timsieved -C $dir/imapd.conf" listen="$host:$sieve" prefork=0
  pop3 cmd="$bin/pop3d -C $dir/imapd.conf" listen="$host:$pop3" prefork=0
  pop3s cmd="$bin/pop3d -s -C $dir/imapd.conf" listen="$host:$pop3s" prefork=0
  lmtp cmd="$bin/lmtpd -C $dir/imapd.conf" listen="$host:$lmtp" prefork=0
  lmtpunix cmd="$bin/lmtpd -C $dir/imapd.conf" listen="$dir/lmtp" prefork=0
}
EVENTS {
}
`

type cyrus struct {
	*store
	tree       string // where its packages were unpacked
	servername string
}

func (c *cyrus) file(name string) string { return filepath.Join(c.dir, name) }
func (c *cyrus) bin(name string) string  { return filepath.Join(c.tree, "usr/lib/cyrus/bin", name) }

func (c *cyrus) run(t testing.TB) *process {
	t.Helper()
	p := c.runMaster(t)
	for _, address := range []string{c.imap(), c.pop3(), c.sieve(), c.lmtp()} {
		p.answers(t, "tcp", address)
	}
	return p
}

// runMaster runs what runs the services that cyrus.conf names.
func (c *cyrus) runMaster(t testing.TB) *process {
	t.Helper()
	libraries, err := filepath.Glob(filepath.Join(c.tree, "usr/lib/*-linux-*"))
	if err != nil || len(libraries) == 0 {
		t.Fatalf("no libraries below %s", c.tree)
	}
	cmd := asServant(t, exec.Command(c.bin("master"), "-C", c.file("imapd.conf"), "-M", c.file("cyrus.conf"), "-p", c.file("pid")))
	cmd.Env = append(os.Environ(),
		"LD_LIBRARY_PATH="+strings.Join(libraries, ":"),
		"CYRUS_USER="+servant(t).Username, "CYRUS_GROUP="+groupOf(t, servant(t)))
	return startProcess(t, c.file("log"), cmd)
}

// addPassword makes an account, which has no mailbox yet.
func (c *cyrus) addPassword(t testing.TB, user, password string) {
	t.Helper()
	name, domain, ok := strings.Cut(user, "@")
	if !ok {
		domain = c.servername
	}
	cmd := asServant(t, exec.Command("saslpasswd2", "-c", "-p", "-f", c.file("sasldb2"), "-u", domain, name))
	cmd.Stdin = strings.NewReader(password)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("saslpasswd2: %v\n%s", err, out)
	}
}

// addMailboxes gives each user an INBOX, without which ManageSieve refuses them, and the store's folder.
func (c *cyrus) addMailboxes(t testing.TB, users []string) {
	t.Helper()
	admin := dial(t, c.imap())
	admin.expect("* OK ")
	admin.ask("LOGIN cyrus " + password)
	for _, user := range users {
		admin.ask(fmt.Sprintf("CREATE user/%s", user))
		name, domain, ok := strings.Cut(user, "@")
		if ok {
			domain = "@" + domain
		}
		admin.ask(fmt.Sprintf("CREATE user/%s/%s%s", name, c.folder(), domain))
		if name == fullUser { // which it is once there is more than the quota
			owner := dial(t, c.imap())
			owner.expect("* OK ")
			owner.ask("LOGIN " + user + " " + password)
			owner.ask("APPEND INBOX {10+}\r\nHello: a\r\n")
			admin.ask(fmt.Sprintf("SETQUOTA user/%s (STORAGE 0)", user))
		}
	}
	admin.ask("LOGOUT")
}
