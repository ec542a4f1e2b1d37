package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends/directories"
	"jackdaw/configs"
	"jackdaw/internal/devca"
)

const portMUPDATE = "13905"

// murder is a Cyrus Murder: a MUPDATE master, and stores that tell it of their mailboxes.
type murder struct {
	*cyrus
	stores [2]*store
}

const mupdateImapdConfig = `
configdirectory: $dir/conf
defaultpartition: default
partition-default: $dir/spool
servername: $name
admins: $proxy
allowplaintext: yes
tls_server_cert: $dir/cert.pem
tls_server_key: $dir/key.pem
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: $dir/sasldb2
sasl_mech_list: PLAIN
`

const mupdateCyrusConfig = `
START {
  recover cmd="$bin/ctl_cyrusdb -C $dir/imapd.conf -r"
}
SERVICES {
  mupdate cmd="$bin/mupdate -C $dir/imapd.conf -m" listen="$host:$mupdate" prefork=1
}
EVENTS {
}
`

// startMurder runs a Murder of two stores, store1 and store2, until the test ends. Anna, John and bob@b.example have their mail on
// the first, carol and dave@b.example on the second, where the others have accounts, too.
func startMurder(t testing.TB) *murder {
	t.Helper()
	m := &murder{cyrus: &cyrus{
		tree: filepath.Join(needServers(t), "cyrus"), servername: "mupdate.example",
		store: &store{name: "mupdate", dir: serverDir(t), host: newHost()},
	}}
	for _, sub := range []string{"conf", "conf/socket", "spool"} {
		mustMkdir(t, m.file(sub), 0o700)
		give(t, m.file(sub))
	}
	ca := newCA(t)
	leaf, err := ca.Issue(devca.Options{Names: []string{m.host}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, m.file("ca.pem"), string(ca.PEM))
	write(t, m.file("cert.pem"), string(leaf.ChainPEM))
	write(t, m.file("key.pem"), string(leaf.KeyPEM))
	values := map[string]string{
		"dir": m.dir, "bin": m.bin(""), "host": m.host, "name": m.servername, "proxy": proxyUser, "mupdate": portMUPDATE,
	}
	write(t, m.file("imapd.conf"), expand(mupdateImapdConfig, values))
	write(t, m.file("cyrus.conf"), expand(mupdateCyrusConfig, values))
	m.addPassword(t, proxyUser, proxyPassword)
	m.launch = func() *process {
		p := m.runMaster(t)
		p.answers(t, "tcp", m.at(portMUPDATE))
		return p
	}
	m.restart()
	member := fmt.Sprintf("mupdate_server: %s:%s\nmupdate_username: %s\nmupdate_authname: %[3]s\nmupdate_password: %s\n"+
		"postuser: post\n", m.host, portMUPDATE, proxyUser, proxyPassword)
	m.stores[0] = cyrusKind{"store1", member}.start(t, "store1", "anna", "john.doe", "bob@b.example")
	m.stores[1] = cyrusKind{"store2", member}.start(t, "store2", "carol", "dave@b.example")
	for _, user := range []string{"anna", "john.doe", "bob@b.example"} {
		(&cyrus{store: m.stores[1], servername: "store2"}).addPassword(t, user, password)
	}
	return m
}

// admin talks to a store as its administrator.
func (m *murder) admin(t testing.TB, n int) *dialog {
	t.Helper()
	d := dial(t, m.stores[n].imap())
	d.expect("* OK ")
	d.ask("LOGIN cyrus " + password)
	return d
}

// config is a directory that follows the Murder.
func (m *murder) config(copy string) configs.Directory {
	return configs.Directory{
		Kind: configs.DirectoryMUPDATE, Servers: []configs.Address{{Network: "tcp", Address: m.at(portMUPDATE)}},
		TLS: configs.TLSStartTLS, TLSCA: m.file("ca.pem"), User: proxyUser, Password: proxyPassword, Copy: copy, Timeout: 5 * time.Second,
	}
}

func openMurder(t testing.TB, c configs.Directory) directories.Directory {
	t.Helper()
	d, err := directories.Open("murder", c, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// placed is what a directory says of a recipient.
func placed(t testing.TB, d directories.Directory, address string) string {
	t.Helper()
	local, domain, _ := strings.Cut(address, "@")
	user, detail, ok := strings.Cut(local, "+")
	if ok {
		detail = "+" + detail
	}
	answer, err := d.Lookup(t.Context(), directories.Query{Local: user, Domain: domain, Detail: detail, Service: configs.LMTP})
	if err != nil {
		return err.Error()
	}
	return answer.Backend
}

// TestMurderFollowed: the list of a real master is followed, by the names that Cyrus has inside, and holds when the master dies.
func TestMurderFollowed(t *testing.T) {
	t.Parallel()
	m := startMurder(t)
	copy := filepath.Join(t.TempDir(), "murder")
	d := openMurder(t, m.config(copy))
	await := func(address, want string) {
		t.Helper()
		eventually(t, address+" is at "+want, func() bool { return placed(t, d, address) == want })
	}
	unknown := directories.ErrNotFound.Error()
	await("anna", "store1")
	for address, want := range map[string]string{
		"john.doe": "store1", "bob@b.example": "store1", "carol@" + cyrusDomain: "store2", "dave@b.example": "store2",
		"anna@b.example": unknown, "eve": unknown, "john": unknown, "anna/Sent": unknown,
	} {
		await(address, want)
	}

	one, two := m.admin(t, 0), m.admin(t, 1)
	two.ask("CREATE info/sales.v1")
	await("post+info/sales.v1", "store2")
	one.ask("SETACL user/john.doe cyrus lrswipkxtecda")
	one.ask("DELETE user/john.doe")
	await("john.doe", unknown)
	two.ask("CREATE user/john.doe")
	began := time.Now()
	await("john.doe", "store2")
	t.Logf("followed after %v", time.Since(began))

	eventually(t, "a copy is written", func() bool {
		_, err := os.Stat(copy)
		return err == nil
	})
	m.fail(t)
	for address, want := range map[string]string{"john.doe": "store2", "anna": "store1", "eve": unknown} {
		await(address, want)
	}
	d.Close()
	d = openMurder(t, m.config(copy))
	if got := placed(t, d, "john.doe"); got != "store2" {
		t.Errorf("after a restart without a master: %s", got)
	}
	m.restart()
	three := m.admin(t, 0)
	three.ask("CREATE user/eve")
	await("eve", "store1")
}

// TestMurderFrontend: jackdaw is a frontend of the Murder, for logins and for mail, and one user after another is moved below it.
func TestMurderFrontend(t *testing.T) {
	t.Parallel()
	m := startMurder(t)
	parts := []string{fmt.Sprintf("[directory.murder]\nkind = \"mupdate\"\nserver = %q\ntls = \"starttls\"\ntls_ca = %q\nuser = %q\npassword = %q\n",
		m.at(portMUPDATE), m.file("ca.pem"), proxyUser, proxyPassword), "[[route]]\nlookup = \"murder\"\n"}
	for _, s := range m.stores {
		parts = append(parts, s.serving("imap", "sieve").backend(fmt.Sprintf("lmtp = %q", "unix:"+s.lmtpSocket())))
	}
	jd := frontend{users: "unqualified = [\"anna\", \"john.doe\", \"carol\"]\n"}.start(t, parts...)
	for user, folder := range map[string]string{
		"anna": m.stores[0].folder(), "john.doe": m.stores[0].folder(), "bob@b.example": m.stores[0].folder(),
		"carol": m.stores[1].folder(), "dave@b.example": m.stores[1].folder(),
	} {
		if folders := jd.folders(t, "mail.a.example", user); !strings.Contains(folders, folder) {
			t.Errorf("%s has no %s: %s", user, folder, folders)
		}
	}

	one, two := m.admin(t, 0), m.admin(t, 1)
	two.ask("CREATE info/sales.v1")
	two.ask("SETACL info/sales.v1 anyone p")
	recipients := []string{
		"anna@" + cyrusDomain, "john.doe@" + cyrusDomain, "post+info/sales.v1@" + cyrusDomain, "eve@" + cyrusDomain,
		"dave@b.example", "anna@b.example", "post@" + cyrusDomain, "carol+Only-on-store2@" + cyrusDomain,
	}
	eventually(t, "the shared mailbox takes mail", func() bool {
		return strings.HasPrefix(jd.courier(t).deliver("Try", "sender@s.example", "post+info/sales.v1@"+cyrusDomain)[0], "250 ")
	})
	verdicts(t, jd.courier(t).deliver("Deliver", "sender@s.example", recipients...),
		"250 ", "250 ", "250 ", "550 ", "250 ", "550 ", "550 ", "250 ")
	if n := m.stores[1].found(t, "carol", "INBOX", "Deliver"); n != 1 {
		t.Errorf("carol has %d messages", n)
	}

	one.ask("SETACL user/anna cyrus lrswipkxtecda")
	one.ask("DELETE user/anna")
	two.ask("CREATE user/anna")
	two.ask("CREATE user/anna/Moved")
	eventually(t, "anna is let in on the other store", func() bool {
		d := jd.imap("mail.a.example")
		defer d.conn.Close()
		_, status := d.command("LOGIN anna " + password)
		return strings.HasPrefix(status, "OK") && strings.Contains(d.ask(`LIST "" *`), "Moved")
	})
	m.fail(t)
	if folders := jd.folders(t, "mail.a.example", "anna"); !strings.Contains(folders, "Moved") {
		t.Errorf("anna has %s", folders)
	}
	verdicts(t, jd.courier(t).deliver("Without a master", "sender@s.example", recipients[:4]...), "250 ", "250 ", "250 ", "550 ")
}
