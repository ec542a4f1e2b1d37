package integration

import (
	"fmt"
	"net"
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
	names  [2]string // of the stores, in the list
}

const mupdateImapdConfig = `
configdirectory: $dir/conf
defaultpartition: default
partition-default: $dir/spool
servername: $name
admins: $proxy
mupdate_allowplaintext: yes
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

// murderKind is what a Murder can be like.
type murderKind struct {
	byAddress bool // the stores are known by their addresses: so they find each other, and can move users by themselves
}

// startMurder runs a Murder of two stores, store1 and store2, until the test ends. Anna, John and bob@b.example have their mail on
// the first, carol and dave@b.example on the second, where the others have accounts, too.
func startMurder(t testing.TB) *murder {
	t.Helper()
	return murderKind{}.start(t)
}

func (k murderKind) start(t testing.TB) *murder {
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
		"postuser: post\nallowusermoves: yes\nproxy_authname: cyrus\nproxy_password: %s\n", m.host, portMUPDATE, proxyUser, proxyPassword, password)
	users := [2][]string{{"anna", "john.doe", "bob@b.example"}, {"carol", "dave@b.example"}}
	for i, name := range []string{"store1", "store2"} {
		host := newHost()
		if m.names[i] = name; k.byAddress {
			m.names[i] = net.JoinHostPort(host, portIMAP)
		}
		m.stores[i] = cyrusKind{host, m.names[i], member}.start(t, name, users[i]...)
	}
	for _, user := range users[0] {
		(&cyrus{store: m.stores[1], servername: m.names[1]}).addPassword(t, user, password)
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
		User: proxyUser, Password: proxyPassword, Copy: copy, Timeout: 5 * time.Second,
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
	m := murderKind{byAddress: true}.start(t)
	copy := filepath.Join(t.TempDir(), "murder")
	d := openMurder(t, m.config(copy))
	await := func(address, want string) {
		t.Helper()
		eventually(t, address+" is at "+want, func() bool { return placed(t, d, address) == want })
	}
	unknown := directories.ErrNotFound.Error()
	for address, want := range map[string]string{
		"anna": m.names[0], "john.doe": m.names[0], "bob@b.example": m.names[0], "carol@" + cyrusDomain: m.names[1],
		"dave@b.example": m.names[1], "anna@b.example": unknown, "eve": unknown, "john": unknown, "anna/Sent": unknown,
	} {
		if got := placed(t, d, address); got != want {
			t.Errorf("%s is at %s, want %s", address, got, want)
		}
	}

	one, two := m.admin(t, 0), m.admin(t, 1)
	two.ask("CREATE info/sales.v1")
	await("post+info/sales.v1", m.names[1])
	one.ask("XFER user/anna " + m.names[1])
	began := time.Now()
	await("anna", m.names[1])
	t.Logf("followed after %v", time.Since(began))
	one.ask("SETACL user/john.doe cyrus lrswipkxtecda")
	one.ask("DELETE user/john.doe")
	await("john.doe", unknown)

	eventually(t, "a copy is written", func() bool {
		_, err := os.Stat(copy)
		return err == nil
	})
	m.fail(t)
	for address, want := range map[string]string{"john.doe": unknown, "anna": m.names[1]} {
		if got := placed(t, d, address); got != want {
			t.Errorf("without a master, %s is at %s, want %s", address, got, want)
		}
	}
	d.Close()
	d = openMurder(t, m.config(copy))
	if got := placed(t, d, "anna"); got != m.names[1] {
		t.Errorf("after a restart without a master: %s", got)
	}
	m.restart()
	eventually(t, "the store finds its master again", func() bool {
		_, status := m.admin(t, 0).command("CREATE user/eve")
		return strings.HasPrefix(status, "OK")
	})
	await("eve", m.names[0])
}

// TestMurderTLS: the list comes under TLS, too. Cyrus 3.6 survives one client with TLS, and not the second.
func TestMurderTLS(t *testing.T) {
	t.Parallel()
	m := startMurder(t)
	c := m.config("")
	c.TLS, c.TLSCA = configs.TLSStartTLS, m.file("ca.pem")
	if got := placed(t, openMurder(t, c), "carol"); got != "store2" {
		t.Errorf("carol is at %s", got)
	}
}

// TestMurderNames: whatever Cyrus makes of a name, the user is let in and gets mail, and mail for a shared mailbox comes to its
// store.
func TestMurderNames(t *testing.T) {
	t.Parallel()
	m := startMurder(t)
	one, two := m.stores[0], m.stores[1]
	parts := []string{m.lookup(filepath.Join(t.TempDir(), "murder"))}
	for _, s := range m.stores {
		parts = append(parts, s.backend(fmt.Sprintf("lmtp = %q", "unix:"+s.lmtpSocket())))
	}
	jd := startJackdaw(t, parts...)
	for user, s := range map[string]*store{
		"anna@" + cyrusDomain: one, "john.doe@" + cyrusDomain: one, "bob@b.example": one, "carol@" + cyrusDomain: two, "dave@b.example": two,
	} {
		if folders := jd.folders(t, "mail.a.example", user); !strings.Contains(folders, s.folder()) {
			t.Errorf("%s has no %s: %s", user, s.folder(), folders)
		}
	}

	admin := m.admin(t, 1)
	admin.ask("CREATE info/sales.v1")
	admin.ask("SETACL info/sales.v1 anyone p")
	shared := "post+info/sales.v1@" + cyrusDomain
	eventually(t, "the shared mailbox takes mail", func() bool {
		return strings.HasPrefix(jd.courier(t).deliver("Try", "sender@s.example", shared)[0], "250 ")
	})
	verdicts(t, jd.courier(t).deliver("Deliver", "sender@s.example",
		"anna@"+cyrusDomain, "john.doe@"+cyrusDomain, shared, "eve@"+cyrusDomain, "dave@b.example", "anna@b.example",
		"post@"+cyrusDomain, "post+info@"+cyrusDomain, "carol+Only-on-store2@"+cyrusDomain),
		"250 ", "250 ", "250 ", "550 ", "250 ", "550 ", "550 ", "550 ", "250 ")
	admin.ask("SETACL info/sales.v1 cyrus lr")
	admin.ask("SELECT info/sales.v1")
	if found := admin.ask("SEARCH SUBJECT Deliver"); strings.TrimSpace(found) == "* SEARCH" {
		t.Error("nothing has come to the shared mailbox")
	}
}
