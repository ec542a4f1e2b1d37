package integration

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// sluggards hold connections open, and say so little on each that it never comes to anything.
type sluggards struct {
	jd     *jackdaw
	limit  time.Duration // how long jackdaw lets one of them be
	hello  string        // the beginning of TLS
	here   map[string]*atomic.Int32
	stop   atomic.Bool  // who is sent away does not come again
	late   atomic.Int32 // were not sent away
	rounds sync.WaitGroup
}

// come has as many connections to each service, and replaces those that are ended until it is to stop.
func (s *sluggards) come(many int, services []string) {
	for _, service := range services {
		s.here[service] = new(atomic.Int32)
	}
	for i := range many * len(services) {
		s.rounds.Go(func() {
			for !s.stop.Load() && s.dawdle(services[i%len(services)], i/len(services)) {
			}
		})
	}
}

// leave has them go when jackdaw sends them away, and not come back.
func (s *sluggards) leave() {
	s.stop.Store(true)
	s.rounds.Wait()
}

// dawdle is one of them, from the first byte to when it is sent away. It is false where nobody listens any more.
func (s *sluggards) dawdle(service string, kind int) bool {
	conn, err := net.Dial("tcp", s.jd.at(ports()[service]))
	if err != nil {
		return false
	}
	defer conn.Close()
	s.here[service].Add(1)
	defer s.here[service].Add(-1)
	first, rest := s.words(service, kind)
	_, _ = io.WriteString(conn, first)
	for end := time.Now().Add(s.limit + patience); time.Now().Before(end); {
		_ = conn.SetReadDeadline(time.Now().Add(s.limit / 10))
		_, err := conn.Read(make([]byte, 256))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && len(rest) > 0:
			_, _ = io.WriteString(conn, rest[:1])
			rest = rest[1:]
		case errors.Is(err, os.ErrDeadlineExceeded), err == nil:
		default:
			return true
		}
	}
	s.late.Add(1)
	return true
}

// words are what one of them says at once, and what it would have said in the end: nothing, a command, or its part of a
// handshake.
func (s *sluggards) words(service string, kind int) (first, rest string) {
	switch {
	case kind%4 == 0:
		return "", ""
	case implicit(service):
		return s.hello[:kind%len(s.hello)], s.hello[kind%len(s.hello):]
	case kind%4 == 1:
		return startTLS[protocol(service)], s.hello
	}
	return "", strings.Repeat("NOOP", 100)
}

// beginning is how TLS begins, without the end.
func beginning(config *tls.Config) string {
	client, server := net.Pipe()
	go func() { _ = tls.Client(client, config).Handshake() }()
	hello := make([]byte, 200)
	_, _ = io.ReadFull(server, hello)
	server.Close()
	return string(hello)
}

// manages tells whether something that tests do can be done.
func manages(t testing.TB, do func(testing.TB)) (ok bool) {
	defer func() {
		if p := recover(); p != nil && p != errTrial {
			panic(p)
		}
	}()
	do(trial{t})
	return true
}

// trial is a test that may fail.
type trial struct{ testing.TB }

var errTrial = errors.New("failed")

func (trial) Fatal(...any)          { panic(errTrial) }
func (trial) Fatalf(string, ...any) { panic(errTrial) }
func (trial) Error(...any)          { panic(errTrial) }
func (trial) Errorf(string, ...any) { panic(errTrial) }

// TestSlowClients: hundreds of clients of every service who never come to the point are in nobody's way, and are sent away in
// their time. LMTP has no login, and its clients may be idle for as long as its own limit says.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	const many = 400
	services := append(loginServices, "lmtp")
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || uint64(files.Cur) < 2*many*uint64(len(services)) {
		t.Skipf("%d files can be open here (%v)", files.Cur, err)
	}
	const limit = 8 * time.Second
	a := startAttacked(t, fmt.Sprintf("login_timeout = %q\nidle_timeout = { lmtp = %[1]q }", limit))
	s := &sluggards{jd: a.jackdaw, limit: limit, hello: beginning(a.tls("mail.a.example")), here: make(map[string]*atomic.Int32)}
	defer s.leave()
	s.come(many, services)
	for _, service := range services {
		eventually(t, "many are at "+service, func() bool { return s.here[service].Load() > many*9/10 })
	}
	for _, service := range services {
		for i := range 3 {
			// That is the time of an honest client, too, who tries again if the machine has too much else to do.
			eventually(t, "honest clients of "+service+" are served", func() bool {
				return manages(t, func(t testing.TB) {
					d := a.meet(t, client{}.at(service, "mail.a.example"))
					defer d.conn.Close()
					if service != "lmtp" {
						d.wants(letIn, d.plain("alice", password))
					}
					d.use(fmt.Sprintf("Meanwhile by %s, %d", service, i))
				})
			})
		}
	}
	s.leave()
	if n := s.late.Load(); n > 0 {
		t.Errorf("%d were not sent away", n)
	}
	eventually(t, "nothing is left of them", func() bool {
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.cmd.Process.Pid))
		return err != nil || len(files) < many // elsewhere there is no such directory
	})
}
