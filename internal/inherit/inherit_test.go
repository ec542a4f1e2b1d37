package inherit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"jackdaw/configs"
)

// patience is how long anything may take that is waited for.
const patience = 20 * time.Second

// heirVariable says what the test binary does when it was started as an heir.
const heirVariable = "JACKDAW_TEST_HEIR"

func TestMain(m *testing.M) {
	if how := os.Getenv(heirVariable); how != "" {
		if err := beHeir(how); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// estate is what the tests hand over last.
type estate struct{ Word string }

// beHeir inherits, and greets with the word that it inherits whoever connects, until the door of the old process is closed.
func beHeir(how string) error {
	if how == "crashes" {
		os.Exit(3)
	}
	w, err := Receive()
	if err != nil {
		return err
	}
	switch how {
	case "refuses":
		return w.Refuse(errors.New("no configuration"))
	case "hangs":
		select {}
	}
	l, err := w.Sockets.Listen(net.ListenConfig{}, configs.Address{Network: "tcp", Address: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	if how == "deaf" {
		err := json.NewEncoder(w.conn).Encode(answer{})
		time.Sleep(patience)
		return err
	}
	var left estate
	if err := w.Accept(&left); err != nil {
		return err
	}
	if how == "ends" {
		return nil
	}
	if err := w.Serve(); err != nil {
		return err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "%s\n", left.Word)
			conn.Close()
		}
	}()
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return w.Processes[0].Bell.Dial(ctx) },
	}}
	if response, err := client.Get("http://old/life"); err == nil {
		_, _ = io.Copy(io.Discard, response.Body)
	}
	return nil
}

// old is a process that hands over.
type old struct {
	t        *testing.T
	sockets  *Sockets
	listener net.Listener
	door     *Door
}

func newOld(t *testing.T) *old {
	o := &old{t: t, sockets: NewSockets()}
	var err error
	o.listener, err = o.sockets.Listen(net.ListenConfig{}, configs.Address{Network: "tcp", Address: "127.0.0.1:0"})
	must(t, err)
	o.door, err = NewDoor()
	must(t, err)
	t.Cleanup(func() { o.listener.Close(); o.door.Close() })
	return o
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start starts the test binary as an heir of some kind.
func (o *old) start(how string) *Heir {
	o.t.Helper()
	o.t.Setenv(heirVariable, how)
	program, err := os.Executable()
	must(o.t, err)
	h, err := Start(o.context(), program, os.Args[:1], o.sockets, []Process{{os.Getpid(), o.door.Bell()}})
	must(o.t, err)
	return h
}

func (o *old) context() context.Context {
	ctx, cancel := context.WithTimeout(o.t.Context(), patience)
	o.t.Cleanup(cancel)
	return ctx
}

// An heir listens where the old process does, knows its last word, and can ask it. Who connects before anybody accepts is
// served all the same.
func TestStart(t *testing.T) {
	o := newOld(t)
	asked := make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(o.door)
	}()
	early, err := net.Dial("tcp", o.listener.Addr().String())
	must(t, err)
	defer early.Close()
	h := o.start("serves")
	must(t, h.Await(o.context()))
	must(t, h.Give(o.context(), estate{"good morning"}))
	o.sockets.Pass()
	must(t, o.listener.Close())
	late, err := net.Dial("tcp", o.listener.Addr().String())
	must(t, err)
	defer late.Close()
	for _, conn := range []net.Conn{early, late} {
		must(t, conn.SetDeadline(time.Now().Add(patience)))
		if line, err := bufio.NewReader(conn).ReadString('\n'); line != "good morning\n" {
			t.Errorf("heard %q, %v", line, err)
		}
	}
	<-asked
	server.Close()
	<-served
	<-h.ended
	if !h.status.Success() {
		t.Error("the heir ended with", h.status)
	}
}

// Whatever keeps an heir from serving is said, and it is gone then; the old process can go on listening.
func TestStartRefused(t *testing.T) {
	for how, want := range map[string]string{
		"crashes": "exit status 3", "refuses": "no configuration", "hangs": "took too long",
	} {
		t.Run(how, func(t *testing.T) {
			o := newOld(t)
			ctx, limit := o.context(), errors.New("took too long")
			if how == "hangs" {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, 100*time.Millisecond, limit)
				defer cancel()
			}
			h := o.start(how)
			if err := h.Await(ctx); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("the error is %v, want one of %q", err, want)
			}
			<-h.ended
			o.mustAccept()
		})
	}
}

// An heir that ends when it is to serve has accepted nobody.
func TestGiveInVain(t *testing.T) {
	o := newOld(t)
	h := o.start("ends")
	must(t, h.Await(o.context()))
	if err := h.Give(o.context(), estate{}); err == nil || !strings.Contains(err.Error(), "exit status 0") {
		t.Error("the error is", err)
	}
	o.mustAccept()
}

// An heir that does not listen holds nobody up, however much there is to say.
func TestGiveDeaf(t *testing.T) {
	o := newOld(t)
	h := o.start("deaf")
	must(t, h.Await(o.context()))
	ctx, cancel := context.WithTimeoutCause(o.context(), 100*time.Millisecond, errors.New("took too long"))
	defer cancel()
	if err := h.Give(ctx, estate{strings.Repeat("word ", 1<<20)}); err == nil || !strings.Contains(err.Error(), "took too long") {
		t.Error("the error is", err)
	}
	o.mustAccept()
}

// mustAccept connects, and accepts that. The accept before it must end by the listener's deadline: it would not, had anything
// made the socket a blocking one.
func (o *old) mustAccept() {
	o.t.Helper()
	tcp := o.listener.(*listener).Listener.(*net.TCPListener)
	must(o.t, tcp.SetDeadline(time.Now()))
	if _, err := o.listener.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		o.t.Error("the listener's deadline:", err)
	}
	must(o.t, tcp.SetDeadline(time.Now().Add(patience)))
	client, err := net.Dial("tcp", tcp.Addr().String())
	must(o.t, err)
	defer client.Close()
	conn, err := o.listener.Accept()
	must(o.t, err)
	conn.Close()
}

// A process that was not started by another one inherits nothing.
func TestReceiveNothing(t *testing.T) {
	if w, err := Receive(); w != nil || err != nil {
		t.Error(w, err)
	}
	t.Setenv(variable, "nonsense")
	if _, err := Receive(); err == nil {
		t.Error("no error")
	}
}

// What systemd has said to us it has not said to the next process.
func TestEnvironment(t *testing.T) {
	got := environment([]string{"A=1", "LISTEN_FDS=2", "WATCHDOG_PID=3", variable + "=9", "NOTIFY_SOCKET=/s", "WATCHDOG_USEC=4"})
	want := []string{"A=1", "NOTIFY_SOCKET=/s", "WATCHDOG_USEC=4", variable + "=3"}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Behind a door there is whoever has it, for all who have its bell; a bell of another door can be sent through.
func TestDoor(t *testing.T) {
	here, err := NewDoor()
	must(t, err)
	defer here.Close()
	there, err := NewDoor()
	must(t, err)
	defer there.Close()
	forwarded := make(chan *Bell, 1)
	here.Forwarded = func(b *Bell) { forwarded <- b }
	must(t, here.Bell().Forward(there.Bell()))
	mustConnect(t, here, here.Bell())
	bell := <-forwarded
	defer bell.Close()
	mustConnect(t, there, bell)
	there.Close()
	if conn, err := bell.Dial(t.Context()); err == nil {
		conn.Close()
		t.Error("nobody is there, and somebody opens")
	}
}

// mustConnect rings, and has a word come through.
func mustConnect(t *testing.T, d *Door, b *Bell) {
	t.Helper()
	outside, err := b.Dial(t.Context())
	must(t, err)
	defer outside.Close()
	inside, err := d.Accept()
	must(t, err)
	defer inside.Close()
	_, err = io.WriteString(outside, "knock\n")
	must(t, err)
	if line, err := bufio.NewReader(inside).ReadString('\n'); line != "knock\n" {
		t.Errorf("heard %q, %v", line, err)
	}
}

// A bell that is rung without a descriptor, as happens to a process that has too many, costs that connection only.
func TestDoorWithoutDescriptor(t *testing.T) {
	d, err := NewDoor()
	must(t, err)
	defer d.Close()
	_, err = d.bell.conn.Write([]byte{visit})
	must(t, err)
	mustConnect(t, d, d.Bell())
}

// The file of a unix socket goes with its listener, but not when another process has the socket by then.
func TestUnixFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	address := configs.Address{Network: "unix", Address: path}
	there := func() bool {
		_, err := os.Lstat(path)
		return !errors.Is(err, fs.ErrNotExist)
	}
	first := NewSockets()
	l, err := first.Listen(net.ListenConfig{}, address)
	must(t, err)
	all, fds, err := first.describe()
	must(t, err)
	if len(all) != 1 || all[0].Address != path {
		t.Fatalf("there is to inherit: %+v", all)
	}
	second := &Sockets{serving: make(chan struct{}), open: make(map[configs.Address]*listener)}
	inherited := &given{address: address, file: os.NewFile(uintptr(fds[0]), path)}
	must(t, second.give(inherited))
	m, err := second.Listen(net.ListenConfig{}, address)
	must(t, err)
	must(t, m.Close())
	if !there() {
		t.Error("an heir that never served has removed the file")
	}
	first.Pass()
	must(t, l.Close())
	if !there() {
		t.Error("who has handed over has removed the file")
	}
	third := NewSockets()
	if l, err = third.Listen(net.ListenConfig{}, address); err != nil {
		t.Fatal(err) // nobody listens any more
	}
	must(t, l.Close())
	if there() {
		t.Error("the file is still there")
	}
}

// A unix socket whose file was replaced is left to whoever has replaced it.
func TestUnixReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	address := configs.Address{Network: "unix", Address: path}
	first, second := NewSockets(), NewSockets()
	l, err := first.Listen(net.ListenConfig{}, address)
	must(t, err)
	if _, err := second.Listen(net.ListenConfig{}, address); !errors.Is(err, syscall.EADDRINUSE) {
		t.Error("the error is", err)
	}
	must(t, os.Remove(path))
	m, err := second.Listen(net.ListenConfig{}, address)
	must(t, err)
	defer m.Close()
	if all, _, err := first.describe(); len(all) != 0 || err != nil {
		t.Errorf("there is to inherit: %+v, %v", all, err)
	}
	must(t, l.Close())
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

// A socket that is no longer wanted is closed; systemd's stays, and is told of.
func TestIdle(t *testing.T) {
	var files []*os.File
	for range 2 {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		must(t, err)
		file, err := l.File()
		must(t, err)
		l.Close()
		files = append(files, file)
	}
	s, err := Activated(files)
	must(t, err)
	first, second := s.given[0].bound, s.given[1].bound
	for range 2 { // a reload may have it closed, and opened again
		l, err := s.Listen(net.ListenConfig{}, configs.Address{Network: "tcp", Address: first.String()})
		must(t, err)
		if idle := s.Idle(); len(idle) != 1 || idle[0] != second {
			t.Errorf("nobody listens on %v", idle)
		}
		must(t, l.Close())
	}
	if all, fds, err := s.describe(); len(all) != 2 || !all[0].Activated || err != nil {
		t.Errorf("there is to inherit: %+v, %v", all, err)
	} else {
		for _, fd := range fds {
			syscall.Close(fd)
		}
	}
	for _, file := range files {
		file.Close()
	}
}

// Of systemd's sockets it is known where they are bound, and a configuration may write that in several ways.
func TestFits(t *testing.T) {
	any6, any4 := &net.TCPAddr{IP: net.IPv6unspecified, Port: 993}, &net.TCPAddr{IP: net.IPv4zero, Port: 993}
	one := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 993}
	for _, test := range []struct {
		bound   net.Addr
		network string
		address string
		want    bool
	}{
		{any6, "tcp", ":993", true},
		{any4, "tcp", ":993", true},
		{any6, "tcp", "[::]:993", true},
		{any6, "tcp", "0.0.0.0:993", false},
		{any4, "tcp", "0.0.0.0:993", true},
		{any6, "tcp", ":143", false},
		{any6, "tcp", "192.0.2.1:993", false},
		{one, "tcp", "192.0.2.1:993", true},
		{one, "tcp", "mail.example.net:993", false},
		{one, "tcp", ":993", false},
		{one, "unix", "/run/s", false},
		{&net.UnixAddr{Name: "/run/s", Net: "unix"}, "unix", "/run/s", true},
		{&net.UnixAddr{Name: "/run/s", Net: "unix"}, "unix", "/run/t", false},
	} {
		g := &given{activated: true, bound: test.bound}
		if got := g.fits(configs.Address{Network: test.network, Address: test.address}); got != test.want {
			t.Errorf("%v fits %s %s: %v", test.bound, test.network, test.address, got)
		}
	}
}
