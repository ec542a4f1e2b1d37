package integration

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"jackdaw/internal/devca"
)

const (
	portLDAP  = "10389"
	portLDAPS = "10636"
)

// openldap is a slapd with people below ou=people,dc=a,dc=example. Who has not logged in may see none of them.
type openldap struct {
	*process
	dir, host string
	launch    func() *process
}

const slapdConfig = `
include $tree/etc/ldap/schema/core.schema
include $tree/etc/ldap/schema/cosine.schema
include $tree/etc/ldap/schema/inetorgperson.schema
include $tree/etc/ldap/schema/misc.schema
attributetype ( 1.1.1.1 NAME 'imapAllowed' EQUALITY booleanMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.7 )
attributetype ( 1.1.1.2 NAME 'popAllowed' EQUALITY booleanMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.7 )
objectclass ( 1.1.2.1 NAME 'mailUser' SUP top AUXILIARY MAY ( imapAllowed $$ popAllowed ) )
modulepath $tree/usr/lib/ldap
moduleload back_mdb.so
pidfile $dir/pid
TLSCertificateFile $dir/cert.pem
TLSCertificateKeyFile $dir/key.pem

database mdb
suffix dc=a,dc=example
directory $dir/data
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact=cn=jackdaw,dc=a,dc=example read by * none
`

// The user of the last entries is in two of them, and that of the referral is said to be elsewhere.
const slapdEntries = `
dn: dc=a,dc=example
objectClass: organization
objectClass: dcObject
o: a

dn: cn=jackdaw,dc=a,dc=example
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: $proxypassword

dn: ou=people,dc=a,dc=example
objectClass: organizationalUnit

dn: uid=anna,ou=people,dc=a,dc=example
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
objectClass: mailUser
cn: Anna
sn: A
mail: anna@a.example
mailHost: store1
imapAllowed: TRUE
popAllowed: FALSE
userPassword: $password

dn: cn=Bob \2B \22Bobby\22\, O'B,ou=people,dc=a,dc=example
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
objectClass: mailUser
uid: robert
sn: B
mail: bob@b.example
mailHost: store2
imapAllowed: TRUE
userPassword: $password

dn: uid=nopassword,ou=people,dc=a,dc=example
objectClass: inetOrgPerson
cn: N
sn: N
mail: nopassword@a.example

dn: cn=One,ou=people,dc=a,dc=example
objectClass: inetOrgPerson
sn: O
mail: twice@a.example
userPassword: $password

dn: cn=Two,ou=people,dc=a,dc=example
objectClass: inetOrgPerson
sn: T
mail: twice@a.example
userPassword: $password

dn: ou=elsewhere,ou=people,dc=a,dc=example
objectClass: referral
objectClass: extensibleObject
ref: ldap://127.0.0.1:1/ou=elsewhere
`

// startOpenLDAP runs a slapd until the test ends. Its certificate is for its address.
func startOpenLDAP(t testing.TB) *openldap {
	t.Helper()
	tree := filepath.Join(needServers(t), "openldap")
	s := &openldap{dir: serverDir(t), host: newHost()}
	ca := newCA(t)
	leaf, err := ca.Issue(devca.Options{Names: []string{s.host}})
	if err != nil {
		t.Fatal(err)
	}
	mustMkdir(t, s.file("data"), 0o700)
	give(t, s.file("data"))
	values := map[string]string{"tree": tree, "dir": s.dir, "password": password, "proxypassword": proxyPassword, "$": "$"}
	for name, text := range map[string]string{
		"ca.pem": string(ca.PEM), "cert.pem": string(leaf.ChainPEM), "key.pem": string(leaf.KeyPEM),
		"slapd.conf": expand(slapdConfig, values), "entries": expand(slapdEntries, values),
	} {
		write(t, s.file(name), text)
	}
	run := func(args ...string) *exec.Cmd {
		cmd := asServant(t, exec.Command(filepath.Join(tree, "usr/sbin/slapd"), args...))
		libraries, err := filepath.Glob(filepath.Join(tree, "usr/lib/*-linux-gnu*"))
		if err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libraries, ":"))
		return cmd
	}
	if out, err := run("-T", "add", "-f", s.file("slapd.conf"), "-l", s.file("entries")).CombinedOutput(); err != nil {
		t.Fatalf("slapadd: %v\n%s", err, out)
	}
	s.launch = func() *process {
		p := startProcess(t, s.file("log"), run("-d", "stats", "-f", s.file("slapd.conf"), "-h", strings.Join(s.urls(), " ")))
		p.answers(t, "tcp", s.at(portLDAP))
		return p
	}
	s.restart()
	return s
}

func (s *openldap) restart()                { s.process = s.launch() }
func (s *openldap) file(name string) string { return filepath.Join(s.dir, name) }
func (s *openldap) at(port string) string   { return net.JoinHostPort(s.host, port) }

// urls are the ways to the server: in the clear and with STARTTLS, within TLS, and a socket.
func (s *openldap) urls() []string {
	return []string{"ldap://" + s.at(portLDAP), "ldaps://" + s.at(portLDAPS), "ldapi://" + url.PathEscape(s.file("ldapi"))}
}

// directory is what jackdaw's configuration says of the server, with more lines.
func (s *openldap) directory(lines ...string) string {
	return fmt.Sprintf(`[directory.people]
kind = "ldap"
urls = [%q]
base = "ou=people,dc=a,dc=example"
bind_dn = "cn=jackdaw,dc=a,dc=example"
bind_password = %q
backend = "mailHost"
services = { imap = "imapAllowed", pop3 = "popAllowed" }
%s
`, s.urls()[0], proxyPassword, strings.Join(lines, "\n"))
}
