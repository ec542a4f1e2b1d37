package proxy

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"jackdaw/configs"
)

// lmtpStore is a mail store that takes LMTP in the one form in which the proxy says it, and whose answers a test can change.
type lmtpStore struct {
	name    string
	address configs.Address
	socket  net.Listener
	caps    string

	mu       sync.Mutex
	answers  map[string]string // to commands by how they begin, and to the "end" of a message, with lines parted by "|"
	pause    chan struct{}     // while it is open, no message is read
	mail     []mail
	strange  []string // what should not have come
	open     int      // connections
	quits    int      // goodbyes
	idle     sync.Cond
	conns    []net.Conn
	handlers sync.WaitGroup
}

// mail is a message that the store has acknowledged for somebody.
type mail struct {
	from string
	to   []string
	size int
	sum  [32]byte // of the message as it came
	body []byte   // if it is short
}

// newLMTPStore brings up a store. An answer is a reply, or "drop", which closes the connection, or "hang".
func newLMTPStore(t testing.TB, name string, answers map[string]string) *lmtpStore {
	dir, err := os.MkdirTemp("", "jackdaw") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	s := &lmtpStore{name: name, caps: "PIPELINING|8BITMIME|CHUNKING|SIZE 100000000|DSN|SMTPUTF8", answers: answers}
	s.idle.L = &s.mu
	s.address = configs.Address{Network: "unix", Address: filepath.Join(dir, "lmtp")}
	if answers == nil {
		s.answers = make(map[string]string)
	}
	if s.socket, err = net.Listen("unix", s.address.Address); err != nil {
		t.Fatal(err)
	}
	s.handlers.Go(s.serve)
	t.Cleanup(func() {
		s.down()
		_ = os.RemoveAll(dir)
		for _, what := range s.strange {
			t.Errorf("%s was told %s", name, what)
		}
	})
	return s
}

// down ends the store with all its connections.
func (s *lmtpStore) down() {
	s.socket.Close()
	s.dropAll()
	s.handlers.Wait()
}

func (s *lmtpStore) dropAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.conns {
		conn.Close()
	}
	s.conns = nil
}

// set changes the answer to what begins so.
func (s *lmtpStore) set(command, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[command] = answer
}

// took returns what was acknowledged, and what was strange, since it was last asked, when all connections have ended.
func (s *lmtpStore) took() ([]mail, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.open > 0 {
		s.idle.Wait()
	}
	mail, strange := s.mail, s.strange
	s.mail, s.strange = nil, nil
	return mail, strange
}

// connections tells how many there are.
func (s *lmtpStore) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// got lists what was acknowledged.
func (s *lmtpStore) got() []mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mail)
}

func (s *lmtpStore) serve() {
	for {
		conn, err := s.socket.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, conn)
		s.open++
		s.mu.Unlock()
		s.handlers.Go(func() {
			l := &lmtpSession{lmtpStore: s, conn: conn, read: bufio.NewReader(conn)}
			err := l.run()
			conn.Close()
			s.mu.Lock()
			defer s.mu.Unlock()
			if err != nil {
				s.strange = append(s.strange, err.Error())
			}
			s.conns = slices.DeleteFunc(s.conns, func(c net.Conn) bool { return c == conn })
			s.open--
			s.idle.Broadcast()
		})
	}
}

// lmtpSession is one connection to the store.
type lmtpSession struct {
	*lmtpStore
	conn net.Conn
	read *bufio.Reader
	mail *mail
	came []byte // by BDAT
}

// choose returns what the test wants to be answered, or else the usual.
func (s *lmtpSession) choose(command, usual string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	longest := ""
	for begin, answer := range s.answers {
		if strings.HasPrefix(command, begin) && len(begin) >= len(longest) {
			longest, usual = begin, answer
		}
	}
	return usual
}

// say sends an answer; false is the end.
func (s *lmtpSession) say(answer string) bool {
	switch answer {
	case "drop":
		return false
	case "hang":
		_, _ = io.Copy(io.Discard, s.conn)
		return false
	}
	_, err := io.WriteString(s.conn, strings.ReplaceAll(answer, "|", "\r\n")+"\r\n")
	return err == nil
}

// answer does both.
func (s *lmtpSession) answer(command, usual string) (positive, ok bool) {
	answer := s.choose(command, usual)
	return answer[0] == '2' || answer[0] == '3' && command == "DATA", s.say(answer)
}

// run answers until the end. An error is of the proxy's making.
func (s *lmtpSession) run() error {
	if _, ok := s.answer("greeting", "220 "+s.name); !ok {
		return nil
	}
	for {
		line, err := s.read.ReadString('\n')
		if err != nil && line == "" {
			return nil
		}
		command, ok := strings.CutSuffix(line, "\r\n")
		if !ok || strings.ContainsAny(command, "\r\n\x00") {
			return fmt.Errorf("half a line: %q and %v", line, err)
		}
		more, err := s.command(command)
		if !more || err != nil {
			return err
		}
	}
}

func (s *lmtpSession) command(command string) (more bool, err error) {
	verb, args, _ := strings.Cut(command, " ")
	switch verb {
	case "LHLO":
		caps := "250-" + strings.ReplaceAll(s.name+"|"+s.caps, "|", "|250-")
		last := strings.LastIndex(caps, "250-")
		_, ok := s.answer(command, caps[:last]+"250 "+caps[last+4:])
		return ok, nil
	case "MAIL":
		if s.mail != nil {
			return false, fmt.Errorf("MAIL twice")
		}
		positive, ok := s.answer(command, "250 2.1.0 OK")
		if positive {
			s.mail = &mail{from: args}
		}
		return ok, nil
	case "RCPT":
		if s.mail == nil || len(s.came) > 0 {
			return false, fmt.Errorf("RCPT out of sequence")
		}
		positive, ok := s.answer(command, "250 2.1.5 OK")
		if positive {
			s.mail.to = append(s.mail.to, args)
		}
		return ok, nil
	case "DATA":
		if s.mail == nil || len(s.mail.to) == 0 || args != "" {
			return false, fmt.Errorf("DATA out of sequence: %q", command)
		}
		positive, ok := s.answer(command, "354 OK")
		if !positive {
			return ok, nil
		}
		return s.data(), nil
	case "BDAT":
		return s.bdat(args)
	case "RSET":
		s.mail, s.came = nil, nil
		_, ok := s.answer(command, "250 2.0.0 OK")
		return ok, nil
	case "QUIT":
		s.mu.Lock()
		s.quits++
		s.mu.Unlock()
		_, _ = s.answer(command, "221 2.0.0 Bye")
		return false, nil
	}
	return false, fmt.Errorf("%q", command)
}

// data reads a message; false if it does not come to its end.
func (s *lmtpSession) data() bool {
	s.mu.Lock()
	pause := s.pause
	_, drop := s.answers["in data"]
	s.mu.Unlock()
	if pause != nil {
		<-pause
	}
	if drop {
		_, _ = s.read.ReadByte()
		return false
	}
	sum := sha256.New()
	for lineStart := true; ; {
		line, err := s.read.ReadSlice('\n')
		_, _ = sum.Write(line)
		if s.mail.size += len(line); s.mail.size < 1<<16 {
			s.mail.body = append(s.mail.body, line...)
		}
		switch {
		case err == bufio.ErrBufferFull:
			lineStart = false
			continue
		case err != nil:
			return false
		case lineStart && string(line) == ".\r\n":
			sum.Sum(s.mail.sum[:0])
			return s.end()
		}
		lineStart = strings.HasSuffix(string(line), "\r\n")
	}
}

func (s *lmtpSession) bdat(args string) (bool, error) {
	digits, last := strings.CutSuffix(args, " LAST")
	size, err := strconv.Atoi(digits)
	if err != nil || s.mail == nil || len(s.mail.to) == 0 {
		return false, fmt.Errorf("BDAT %q", args)
	}
	octets := make([]byte, size)
	if _, err := io.ReadFull(s.read, octets); err != nil {
		return false, nil
	}
	s.came = append(s.came, octets...)
	if !last {
		_, ok := s.answer("BDAT", "250 2.0.0 OK")
		return ok, nil
	}
	s.mail.body = s.came
	s.mail.size, s.mail.sum = len(s.came), sha256.Sum256(s.came)
	return s.end(), nil
}

// end says what has become of the message, for each recipient.
func (s *lmtpSession) end() bool {
	done := s.mail
	s.mail, s.came = nil, nil
	all := done.to
	done.to = nil
	var answers []string
	for i, to := range all {
		answer := s.choose(fmt.Sprintf("end %d %s", i, to), fmt.Sprintf("250 2.0.0 %s by %s", strings.ReplaceAll(to, "|", "!"), s.name))
		if answers = append(answers, answer); answer[0] == '2' {
			done.to = append(done.to, to)
		}
		if answer == "drop" || answer == "hang" {
			break
		}
	}
	s.mu.Lock()
	s.lmtpStore.mail = append(s.lmtpStore.mail, *done)
	s.mu.Unlock()
	for _, answer := range answers {
		if !s.say(answer) {
			return false
		}
	}
	return true
}
