package integration

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// dynasty is a jackdaw in which one process follows another, before an IMAP store of the test's own.
type dynasty struct {
	*jackdaw
	program string // a copy, which a test may replace
	admin   string // the socket
	store   string // the address
	listen  string // more lines for that table

	// What the first process is started with, besides.
	env   []string
	files []*os.File // from descriptor 3 on
}

func startDynasty(t testing.TB) *dynasty {
	t.Helper()
	d := newDynasty(t)
	d.start()
	return d
}

func newDynasty(t testing.TB) *dynasty {
	t.Helper()
	jd := &jackdaw{t: t, host: newHost(), dir: serverDir(t)}
	jd.ca = newCA(t)
	jd.file = filepath.Join(jd.dir, "jackdaw.toml")
	d := &dynasty{jackdaw: jd, program: filepath.Join(jd.dir, "jackdaw"), admin: filepath.Join(jd.dir, "admin"), store: quickStore(t)}
	mustMkdir(t, jd.certDir(), 0o700)
	jd.certify("mail.a.example")
	d.install(built(t))
	d.write("")
	return d
}

// start starts the first process. A shell stays when it has gone, and with it the group that is ended after the test.
func (d *dynasty) start() {
	d.t.Helper()
	const script = `sh -c 'LISTEN_PID=$$ exec "$0" serve -c "$1"' "$0" "$1" & while :; do sleep 3600 & wait $!; done`
	cmd := exec.Command("sh", "-c", script, d.program, d.file)
	cmd.Env, cmd.ExtraFiles = append(os.Environ(), d.env...), d.files
	d.process = startProcess(d.t, filepath.Join(d.dir, "log"), cmd)
	d.answers(d.t, "tcp", d.at(portIMAPS))
	d.answers(d.t, "unix", d.admin) // which comes after the listeners
}

// write writes the configuration, with more lines.
func (d *dynasty) write(lines string) {
	d.t.Helper()
	replace(d.t, d.file, fmt.Appendf(nil, "[listen]\nimaps = %q\n%s\n[tls]\ncertificates = [\"certs\"]\n[admin]\nsocket = %q\n"+
		"[[backend]]\nname = \"store\"\nimap = %q\n%s", d.at(portIMAPS), d.listen, d.admin, d.store, lines))
}

// install puts a program into the place of the running one, as package managers do. cp writes it: a file of ours that is open for
// writing would for a moment be open in whatever process another test starts, and could not be run.
func (d *dynasty) install(program string) {
	d.t.Helper()
	next := d.program + ".new"
	must(d.t, exec.Command("cp", program, next).Run())
	must(d.t, os.Rename(next, d.program))
}

// script makes a program of a text.
func (d *dynasty) script(text string) (path string) {
	d.t.Helper()
	path = filepath.Join(d.t.TempDir(), "script")
	must(d.t, os.WriteFile(path, []byte(text), 0o755))
	return path
}

// byHTTP speaks with the daemon on its socket.
func (d *dynasty) byHTTP() *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", d.admin) },
	}}
}

// ask is what the commands do, without a process for each: it posts an order, anew if that was for another process, and returns the
// answer.
func (d *dynasty) ask(order string) string {
	d.t.Helper()
	for {
		response, err := d.byHTTP().Post("http://jackdaw/"+order, "", nil)
		must(d.t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		must(d.t, err)
		switch response.StatusCode {
		case http.StatusOK:
			return string(text)
		case http.StatusMisdirectedRequest:
			time.Sleep(50 * time.Millisecond)
		default:
			d.t.Fatalf("%s: %s: %s", order, response.Status, text)
		}
	}
}

// upgrade has a new process take over, and returns its id.
func (d *dynasty) upgrade() int {
	d.t.Helper()
	var answer struct{ Process int }
	must(d.t, json.Unmarshal([]byte(d.ask("upgrade")), &answer))
	return answer.Process
}

// upgradeByCommand is upgrade by jackdaw's own command.
func (d *dynasty) upgradeByCommand() (pid int) {
	d.t.Helper()
	said := obeys(d.t, d.admin, "upgrade")
	if _, err := fmt.Sscanf(said, "process %d has taken over", &pid); err != nil {
		d.t.Fatalf("upgrade said %q", said)
	}
	return pid
}

// refuses wants an order to change nothing, for a reason.
func (d *dynasty) refuses(command, reason string) {
	d.t.Helper()
	if said, status := asksDaemon(d.t, d.admin, command); status != 1 || !strings.Contains(said, reason) {
		d.t.Errorf("%s: exit status %d: %q, want exit status 1 and %q", command, status, said, reason)
	}
}

// ends waits until a process is gone.
func (d *dynasty) ends(pid int) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("process %d is gone", pid), func() bool {
		for _, p := range stats(d.t, fmt.Sprintf("/proc/%d/stat", pid)) {
			return p.state == "Z" // whoever is to wait for it is not ours to hurry
		}
		return true
	})
}

// quickStore is an IMAP server that lets in whoever has the password, and returns its address.
func quickStore(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var sessions sync.WaitGroup
	t.Cleanup(sessions.Wait)
	t.Cleanup(func() { l.Close() })
	sessions.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() {
				defer conn.Close()
				serveQuickly(conn)
			})
		}
	})
	return l.Addr().String()
}

// serveQuickly answers the commands that a proxy and the clients of these tests have.
func serveQuickly(conn net.Conn) {
	const capabilities = "CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR"
	fmt.Fprintf(conn, "* OK [%s] ready\r\n", capabilities)
	for in := bufio.NewScanner(conn); in.Scan(); {
		tag, command, _ := strings.Cut(in.Text(), " ")
		switch word, _, _ := strings.Cut(command, " "); {
		case word == "CAPABILITY":
			fmt.Fprintf(conn, "* %s\r\n%s OK done\r\n", capabilities, tag)
		case word == "AUTHENTICATE" && !knowsPassword(command):
			fmt.Fprintf(conn, "%s NO [AUTHENTICATIONFAILED] wrong\r\n", tag)
		case word == "FETCH":
			sendLetter(conn, tag)
		case word == "LOGOUT":
			fmt.Fprintf(conn, "* BYE\r\n%s OK done\r\n", tag)
			return
		default:
			fmt.Fprintf(conn, "%s OK done\r\n", tag)
		}
	}
}

// knowsPassword tells whether the response of SASL PLAIN, at the end of a command, has the right password in it.
func knowsPassword(command string) bool {
	response, err := base64.StdEncoding.DecodeString(command[strings.LastIndex(command, " ")+1:])
	return err == nil && strings.HasSuffix(string(response), "\x00"+password)
}

// load is clients that come and go all the time, each with a handshake and a login, some of which resume their session.
type load struct {
	number          int
	stop            chan struct{}
	clients         sync.WaitGroup
	visits, resumed atomic.Int64
	mu              sync.Mutex
	faults          []error
}

// startLoad lets so many clients in a row visit a daemon until end is called.
func startLoad(d *dynasty, clients int) *load {
	l := &load{number: clients, stop: make(chan struct{})}
	for range clients {
		config := d.tls("mail.a.example")
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		l.clients.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-l.stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
				if err := l.visit(d.at(portIMAPS), config); err != nil {
					l.mu.Lock()
					l.faults = append(l.faults, fmt.Errorf("visit %d: %w", n, err))
					l.mu.Unlock()
				}
			}
		})
	}
	return l
}

func (l *load) visit(address string, config *tls.Config) error {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", address, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if conn.ConnectionState().DidResume {
		l.resumed.Add(1)
	}
	if _, err := io.WriteString(conn, "a LOGIN alice@a.example "+password+"\r\nb NOOP\r\nc LOGOUT\r\n"); err != nil {
		return err
	}
	said, err := io.ReadAll(conn)
	if err == nil && !(strings.Contains(string(said), "\r\na OK") && strings.Contains(string(said), "\r\nc OK")) {
		err = fmt.Errorf("said %q", said)
	}
	l.visits.Add(1)
	return err
}

// end wants each visit to have gone well, and each client to have resumed its session whenever it came again.
func (l *load) end(t testing.TB) {
	t.Helper()
	close(l.stop)
	l.clients.Wait()
	t.Logf("%d visits, %d of them resumed", l.visits.Load(), l.resumed.Load())
	for _, err := range l.faults[:min(len(l.faults), 5)] {
		t.Error(err)
	}
	if first := int(l.visits.Load() - l.resumed.Load()); first != l.number {
		t.Errorf("%d sessions began anew, want one for each of %d clients", first, l.number)
	}
	if len(l.faults) > 0 {
		t.Errorf("%d visits have failed", len(l.faults))
	}
}

// amount is how often something is done: JACKDAW_UPGRADES and JACKDAW_RELOADS ask for more than takes a moment.
func amount(t testing.TB, variable string, few int) int {
	t.Helper()
	if text := os.Getenv(variable); text != "" {
		n, err := strconv.Atoi(text)
		must(t, err)
		return n
	}
	return few
}

// TestUpgrades: while clients come and go, one process follows the other, and the configuration is read again and again. Nobody
// is refused, and sessions that were begun at any time go on, each with its own process.
func TestUpgrades(t *testing.T) {
	t.Parallel()
	d := startDynasty(t)
	upgrades, reloads := amount(t, "JACKDAW_UPGRADES", 10), amount(t, "JACKDAW_RELOADS", 50)
	l := startLoad(d, 4)
	var held []*dialog
	var pids []int
	for n := range upgrades {
		if n%max(1, upgrades/10) == 0 {
			held = append(held, d.login("mail.a.example", "alice@a.example"))
		}
		for range reloads / upgrades {
			d.ask("reload")
		}
		pids = append(pids, d.upgrade())
		for _, session := range held {
			session.ask("NOOP")
		}
	}
	l.end(t)
	for _, session := range held {
		session.ask("NOOP")
		session.ask("LOGOUT")
		session.conn.Close()
	}
	last := len(pids) - 1
	for _, pid := range pids[:last] {
		d.ends(pid)
	}
	descriptors, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pids[last]))
	must(t, err)
	if n := len(descriptors); n > 40 {
		t.Errorf("the last process has %d descriptors, and no sessions", n)
	}
	must(t, syscall.Kill(pids[last], syscall.SIGTERM))
	d.ends(pids[last])
}

// TestUpgradeRefused: what cannot begin leaves everything as it was, and says why.
func TestUpgradeRefused(t *testing.T) {
	t.Parallel()
	d := startDynasty(t)
	session := d.login("mail.a.example", "alice@a.example")
	l := startLoad(d, 1)

	d.write("surplus = 1\n")
	d.refuses("reload", "jackdaw.toml:11: ")
	d.refuses("upgrade", "jackdaw.toml:11: ")
	d.write("")
	d.install(d.script("#!/bin/sh\nexit 3\n"))
	d.refuses("upgrade", "exit status 3")
	d.install(d.script("no program"))
	d.refuses("upgrade", "exec format error")
	must(t, os.Remove(d.program))
	d.refuses("upgrade", "no such file")

	d.install(built(t))
	former := d.upgradeByCommand()
	l.end(t)
	session.ask("NOOP")
	obeys(t, d.admin, "reload")
	d.upgradeByCommand()
	d.ends(former)
	session.ask("NOOP")
}

// TestUpgradePool: while a former process has a session of a user, the new one leads him to the same member of a pool, and what
// still logs in at the former one goes where the new one has him.
func TestUpgradePool(t *testing.T) {
	t.Parallel()
	d := newDynasty(t)
	const user = "alice@a.example"
	other := quickStore(t)
	prefer := func(member string) {
		d.write(fmt.Sprintf("[[backend]]\nname = \"other\"\nimap = %q\n[[pool]]\nname = \"farm\"\nmembers = [\"store\", \"other\"]\n"+
			"sticky = \"1s\"\nweights = { %s = 1000000 }\n[[route]]\nto = \"farm\"\n", other, member))
	}
	goes := func(session *dialog, to string) {
		t.Helper()
		before := d.count(`"msg":"login"`, fmt.Sprintf(`"backend":%q`, to))
		session.ask("LOGIN " + user + " " + password)
		d.loggedTimes(t, before+1, `"msg":"login"`, fmt.Sprintf(`"backend":%q`, to))
	}
	prefer("store")
	d.start()
	early, late := d.imap("mail.a.example"), d.imap("mail.a.example")
	goes(early, "store")

	prefer("other")
	former := d.upgrade()
	during := d.imap("mail.a.example")
	goes(during, "store")
	during.conn.Close()
	d.upgrade() // the next one knows of the first, too
	d.ends(former)
	during = d.imap("mail.a.example")
	goes(during, "store")
	during.conn.Close()

	early.conn.Close()
	var after *dialog
	eventually(t, "the user may go elsewhere", func() bool {
		if after != nil {
			after.conn.Close()
			time.Sleep(1100 * time.Millisecond) // each visit holds the place for a second more
		}
		logins := d.count(`"msg":"login"`)
		after = d.login("mail.a.example", user)
		d.loggedTimes(t, logins+1, `"msg":"login"`)
		return d.count(`"msg":"login"`, `"backend":"other"`) > 0
	})
	goes(late, "other")
	after.ask("NOOP")
}

// TestUpgradeUnix: a unix socket has the same file before and after, and goes with the last process.
func TestUpgradeUnix(t *testing.T) {
	t.Parallel()
	d := newDynasty(t)
	path := filepath.Join(d.dir, "lmtp")
	d.listen = fmt.Sprintf("lmtp = \"unix:%s\"", path)
	d.write(fmt.Sprintf("lmtp = %q\n", net.JoinHostPort(d.host, portLMTP))) // where nobody listens
	d.start()
	d.answers(t, "unix", path)
	before, err := os.Stat(path)
	must(t, err)
	former := d.upgrade()
	last := d.upgrade()
	d.ends(former)
	after, err := os.Stat(path)
	must(t, err)
	if !os.SameFile(before, after) {
		t.Error("the socket has another file")
	}
	dialFrom(t, "", "unix", path).expect("220 ")
	must(t, syscall.Kill(last, syscall.SIGTERM))
	d.ends(last)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket has left its file: %v", err)
	}
}
