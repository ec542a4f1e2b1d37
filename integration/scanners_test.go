package integration

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"jackdaw/internal/devca"
)

// scanned is what scanners look at: a jackdaw, and a HAProxy as Debian configures it. They have the same certificate, of
// RSA, with which the old ciphers would work, too.
type scanned struct {
	*jackdaw
	haproxy string // address of the one port that it has, within TLS
}

const scannedName = "scanned.example"

func startScanned(t *testing.T) scanned {
	t.Helper()
	ca, dir := newCA(t), serverDir(t)
	leaf, err := ca.Issue(devca.Options{Names: []string{scannedName}, RSA: true})
	must(t, err)
	combined(t, dir, scannedName, 1, leaf)
	store := startDovecot(t, "store1", passwords).serving("imap", "pop3", "submission", "sieve", "lmtp")
	s := scanned{haproxy: startHAProxy(t, dir, store)}
	s.jackdaw = frontend{ca: ca, certificates: fmt.Sprintf("%q", dir)}.start(t, store.backend())
	return s
}

// startHAProxy runs a HAProxy before a store's IMAP, with the certificates in a directory.
func startHAProxy(t testing.TB, certificates string, s *store) (address string) {
	t.Helper()
	debian, err := os.ReadFile("/etc/haproxy/haproxy.cfg")
	must(t, err)
	address = fmt.Sprintf("%s:%s", newHost(), portIMAPS)
	dir := serverDir(t)
	file := filepath.Join(dir, "haproxy.cfg")
	write(t, file, expand(haproxyConfig, map[string]string{
		"defaults": strings.Join(haproxyDefaults.FindAllString(string(debian), -1), "\n"),
		"address":  address, "certificates": certificates, "store": s.imap(),
	}))
	startProcess(t, filepath.Join(dir, "log"), exec.Command("haproxy", "-db", "-f", file)).answers(t, "tcp", address)
	return address
}

// haproxyDefaults are the lines about TLS in Debian's configuration.
var haproxyDefaults = regexp.MustCompile(`(?m)^\s*ssl-default-bind-.*$`)

const haproxyConfig = `
global
$defaults
defaults
	mode tcp
	timeout connect 10s
	timeout client 1m
	timeout server 1m
listen imaps
	bind $address ssl crt $certificates
	server store $store
`

// finding is something that testssl.sh says of a server.
type finding struct{ ID, Severity, Finding string }

// severities are those that are bad, from the least; WARN says that something could not be looked at.
var severities = []string{"WARN", "LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL"}

func (f finding) badness() int { return slices.Index(severities, f.Severity) + 1 }

// findings are the worst of each kind.
type findings map[string]finding

// scan is a run of testssl.sh. It looks at no other server than the one.
type scan struct {
	address  string
	startTLS string // the protocol by which TLS begins; "": it begins at once
	checks   []string
}

// run repeats what has left testssl.sh without an answer, as it may on a busy machine.
func (s scan) run(t testing.TB, ca string) (all findings, err error) {
	for range 3 {
		all, err = s.once(t, ca)
		unanswered := func(f finding) bool { return f.Severity == "WARN" && f.ID != "engine_problem" }
		if err != nil || !slices.ContainsFunc(slices.Collect(maps.Values(all)), unanswered) {
			break
		}
	}
	return all, err
}

func (s scan) once(t testing.TB, ca string) (findings, error) {
	host, port, _ := strings.Cut(s.address, ":")
	file := filepath.Join(t.TempDir(), "findings.json")
	args := append([]string{"--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--ip", host, "--add-ca", ca,
		"--jsonfile", file}, s.checks...)
	if s.startTLS != "" {
		args = append(args, "--starttls", s.startTLS)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*patience)
	defer cancel()
	// It is a shell that would take all that there is for itself, and other tests wait for their servers.
	cmd := exec.CommandContext(ctx, "nice", slices.Concat([]string{"testssl"}, args, []string{scannedName + ":" + port})...)
	cmd.Env = append(os.Environ(), "MAX_WAITSOCK=30", "STARTTLS_SLEEP=30") // seconds, on a busy machine
	said, _ := cmd.CombinedOutput()                                        // how it ends tells how much it has found
	text, err := os.ReadFile(file)
	var list []finding
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", cmd, err, said)
	}
	all := make(findings)
	for _, f := range list {
		if old, twice := all[f.ID]; !twice || f.badness() > old.badness() {
			all[f.ID] = f
		}
	}
	return all, nil
}

// runAll runs the scans, two at a time.
func runAll(t testing.TB, ca string, scans map[string]scan) map[string]findings {
	t.Helper()
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		desk = make(chan struct{}, 2)
		all  = make(map[string]findings)
	)
	for what, s := range scans {
		wg.Go(func() {
			desk <- struct{}{}
			defer func() { <-desk }()
			begun := time.Now()
			found, err := s.run(t, ca)
			if err != nil {
				t.Error(err)
			}
			t.Logf("%s: %d findings in %v", what, len(found), time.Since(begun).Round(time.Second))
			mu.Lock()
			defer mu.Unlock()
			all[what] = found
		})
	}
	wg.Wait()
	return all
}

// TestTestssl: testssl.sh finds nothing in jackdaw that it does not find in HAProxy, too. It looks at one service within
// TLS, and at one that sslscan knows, which takes a hundredth of the time and looks at all others.
func TestTestssl(t *testing.T) {
	t.Parallel()
	s := startScanned(t)
	thorough := []string{"-p", "-s", "-S", "-H", "-I", "-R", "-C"}
	scans := map[string]scan{
		"haproxy": {s.haproxy, "", thorough},
		"imaps":   {s.at(portIMAPS), "", thorough},
	}
	known := tool(t, "", "testssl", "--help")
	for _, service := range []string{"imap", "sieve", "lmtp"} {
		if strings.Contains(known, service) { // ManageSieve since version 3.2
			scans[service] = scan{s.at(ports()[service]), byStartTLS(service), []string{"-p", "-R"}}
		}
	}
	all := runAll(t, s.caFile(), scans)
	for what, found := range all {
		if what != "haproxy" {
			found.compare(t, what, all["haproxy"])
		}
	}
}

// outdated is what nobody should be offered, by the names of findings.
var outdated = regexp.MustCompile(
	`^(SSLv2|SSLv3|TLS1|TLS1_1|cipherlist_(NULL|aNULL|EXPORT|LOW|3DES_IDEA|AVERAGE|OBSOLETED|STRONG_NOFS))$`)

// compare wants nothing worse than what HAProxy has, and nothing that is out of date. Package crypto/tls says that tickets
// are good for a week, and cannot be told anything else.
func (all findings) compare(t *testing.T, what string, haproxy findings) {
	t.Helper()
	for _, id := range []string{"TLS1_2", "TLS1_3"} {
		if !strings.HasPrefix(all[id].Finding, "offered") {
			t.Errorf("%s: %s is %q", what, id, all[id].Finding)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		ours, theirs := all[id], haproxy[id]
		if ours.Severity != theirs.Severity {
			t.Logf("%s: %s: %s (%s), HAProxy: %s (%s)", what, id, ours.Severity, ours.Finding, theirs.Severity, theirs.Finding)
		}
		worse := ours.badness() > theirs.badness() && id != "TLS_session_ticket"
		if worse || outdated.MatchString(id) && ours.Finding != "not offered" {
			t.Errorf("%s: %s: %s (%s)", what, id, ours.Severity, ours.Finding)
		}
	}
}

// sslscanned is what sslscan says of a server.
type sslscanned struct {
	Protocols []struct {
		Type    string `xml:"type,attr"`
		Version string `xml:"version,attr"`
		Enabled bool   `xml:"enabled,attr"`
	} `xml:"ssltest>protocol"`
	Ciphers       []sslCipher  `xml:"ssltest>cipher"`
	Renegotiation sslSupported `xml:"ssltest>renegotiation"`
	Compression   sslSupported `xml:"ssltest>compression"` // missing where openssl cannot compress
}

type sslCipher struct {
	Name string `xml:"cipher,attr"`
}

type sslSupported struct {
	Supported bool `xml:"supported,attr"`
}

// sslscan has sslscan look at a server.
func sslscan(t testing.TB, address, startTLS string) (found sslscanned) {
	t.Helper()
	args := []string{"--xml=-", "--sni-name=" + scannedName}
	if startTLS != "" {
		args = append(args, "--starttls-"+startTLS)
	}
	out := tool(t, "", "sslscan", append(args, address)...)
	if err := xml.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("sslscan: %v\n%s", err, out)
	}
	return found
}

// modern are the ciphers that RFC 9325 section 4.2 recommends, and those of TLS 1.3.
var modern = regexp.MustCompile(`^(TLS_AES_.*_GCM_.*|TLS_CHACHA20_.*|ECDHE-RSA-(AES.*-GCM-.*|CHACHA20-POLY1305))$`)

// byStartTLS is the name that scanners and openssl know a service's STARTTLS by, "" where it is not spoken.
func byStartTLS(service string) string {
	if implicit(service) {
		return ""
	}
	return strings.Replace(service, "submission", "smtp", 1)
}

// TestSslscan: sslscan finds what is modern in jackdaw, and nothing that HAProxy has not.
func TestSslscan(t *testing.T) {
	t.Parallel()
	s := startScanned(t)
	haproxy := sslscan(t, s.haproxy, "")
	t.Logf("haproxy: %+v", haproxy)
	for _, service := range loginServices {
		if service == "sieve" {
			continue // which sslscan does not speak
		}
		found := sslscan(t, s.at(ports()[service]), byStartTLS(service))
		t.Logf("%s: %+v", service, found)
		if len(found.Protocols) == 0 || len(found.Ciphers) == 0 {
			t.Errorf("%s: sslscan finds nothing", service)
		}
		for _, p := range found.Protocols {
			if want := p.Type == "tls" && p.Version >= "1.2"; p.Enabled != want {
				t.Errorf("%s: %s %s is enabled: %v", service, p.Type, p.Version, p.Enabled)
			}
		}
		for _, c := range found.Ciphers {
			if !modern.MatchString(c.Name) || !slices.Contains(haproxy.Ciphers, c) {
				t.Errorf("%s: %s", service, c.Name)
			}
		}
		if found.Renegotiation.Supported && !haproxy.Renegotiation.Supported || found.Compression.Supported {
			t.Errorf("%s: renegotiation: %v, compression: %v", service, found.Renegotiation, found.Compression)
		}
	}
}

// TestOutdatedClients: no service has anything to do with a client that knows only what is out of date, or wants another
// handshake. The alerts are jackdaw's, so that openssl has tried.
func TestOutdatedClients(t *testing.T) {
	t.Parallel()
	s := startScanned(t)
	for _, service := range append(loginServices, "lmtp") {
		for what, tt := range map[string]struct{ version, ciphers, input, alert string }{
			"TLS 1.0":          {"-tls1", "ALL", "", "alert protocol version"},
			"TLS 1.1":          {"-tls1_1", "ALL", "", "alert protocol version"},
			"a key that stays": {"-tls1_2", "kRSA", "", "alert handshake failure"},
			"CBC":              {"-tls1_2", "ECDHE-RSA-AES128-SHA256:ECDHE-RSA-AES128-SHA", "", "alert handshake failure"},
			"finite fields":    {"-tls1_2", "kDHE", "", "alert handshake failure"},
			"renegotiation":    {"-tls1_2", "ALL", "R\n", "alert unexpected message"},
		} {
			if tt.input != "" && (implicit(service) || service == "sieve") {
				continue // where openssl stumbles over the greeting
			}
			said, err := s.openssl(t, service, scannedName, tt.input, tt.version, "-cipher", tt.ciphers+":@SECLEVEL=0")
			if err == nil || !strings.Contains(said, tt.alert) {
				t.Errorf("%s, %s: openssl ends with %v:\n%s", service, what, err, said)
			}
		}
	}
}
