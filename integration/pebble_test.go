package integration

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"jackdaw/internal/devca"
)

// The ports of an authority, and those to which it comes to see challenges answered.
const (
	portACME       = "14000"
	portManagement = "15000"
	portDNS        = "10053"
	portHTTP       = "10080"
	portTLSALPN    = "10443"
)

// pebble is what an authority can be like. The zero value issues to everybody, for years.
type pebble struct {
	lifetime time.Duration     // of certificates
	bindings map[string]string // external accounts, of which it wants one: keys in base64url by their names
	lenient  bool              // it takes every nonce that it gave; else it refuses one in twenty, as Pebble does to try clients
}

// authority is a Pebble, with a DNS server of its own.
type authority struct {
	*process
	t    testing.TB
	host string
	dir  string
	ca   *devca.CA // for its own API
}

// start runs a Pebble until the test ends. All names lead to the address that is given.
func (p pebble) start(t testing.TB, leads string) *authority {
	t.Helper()
	needServers(t)
	a := &authority{t: t, host: newHost(), dir: serverDir(t)}
	a.certify()
	a.configure(p)
	names := startProcess(t, filepath.Join(a.dir, "dns.log"), asServant(t, exec.Command("pebble-challtestsrv",
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", "", "-defaultIPv4", leads,
		"-dns01", a.at(portDNS), "-management", a.at("8055"))))
	names.answers(t, "tcp", a.at(portDNS))
	cmd := asServant(t, exec.Command("pebble", "-config", filepath.Join(a.dir, "pebble.json"), "-dnsserver", a.at(portDNS)))
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0") // each name is proven each time
	if p.lenient {
		cmd.Env = append(cmd.Env, "PEBBLE_WFE_NONCEREJECT=0")
	}
	a.process = startProcess(t, filepath.Join(a.dir, "log"), cmd)
	a.answers(t, "tcp", a.at(portACME))
	return a
}

func (a *authority) at(port string) string { return net.JoinHostPort(a.host, port) }

// certify makes the certificate of its API.
func (a *authority) certify() {
	a.t.Helper()
	var err error
	if a.ca, err = devca.New(); err != nil {
		a.t.Fatal(err)
	}
	leaf, err := a.ca.Issue(devca.Options{Names: []string{a.host}})
	if err != nil {
		a.t.Fatal(err)
	}
	write(a.t, a.caFile(), string(a.ca.PEM))
	write(a.t, filepath.Join(a.dir, "api.crt"), string(leaf.ChainPEM))
	write(a.t, filepath.Join(a.dir, "api.key"), string(leaf.KeyPEM))
}

func (a *authority) caFile() string { return filepath.Join(a.dir, "ca.pem") }

func (a *authority) configure(p pebble) {
	a.t.Helper()
	settings := map[string]any{
		"listenAddress":           a.at(portACME),
		"managementListenAddress": a.at(portManagement),
		"certificate":             filepath.Join(a.dir, "api.crt"),
		"privateKey":              filepath.Join(a.dir, "api.key"),
		"httpPort":                number(a.t, portHTTP),
		"tlsPort":                 number(a.t, portTLSALPN),
	}
	if p.lifetime > 0 {
		settings["certificateValidityPeriod"] = int(p.lifetime.Seconds())
	}
	if p.bindings != nil {
		settings["externalAccountBindingRequired"] = true
		settings["externalAccountMACKeys"] = p.bindings
	}
	text, err := json.Marshal(map[string]any{"pebble": settings})
	if err != nil {
		a.t.Fatal(err)
	}
	write(a.t, filepath.Join(a.dir, "pebble.json"), string(text))
}

// lead has a name lead to an address.
func (a *authority) lead(name, host string) {
	a.t.Helper()
	question, err := json.Marshal(map[string]any{"host": name + ".", "addresses": []string{host}})
	if err != nil {
		a.t.Fatal(err)
	}
	answer, err := http.Post("http://"+a.at("8055")+"/add-a", "application/json", bytes.NewReader(question))
	if err != nil {
		a.t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		a.t.Fatalf("leading %s to %s: %s", name, host, answer.Status)
	}
}

// roots are what vouches for the certificates that it issues.
func (a *authority) roots() *x509.CertPool {
	a.t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.ca.Pool()}, DisableKeepAlives: true}
	answer, err := (&http.Client{Transport: transport}).Get("https://" + a.at(portManagement) + "/roots/0")
	if err != nil {
		a.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(text) {
		a.t.Fatalf("the root is %q, %v", text, err)
	}
	return pool
}
