package directories

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// maxAuthLine bounds a line of the auth protocol in both directions: AUTH_CLIENT_MAX_LINE_LENGTH. Who sends more is cut off, with all
// who ask over the same connection.
const maxAuthLine = 16384

// dovecotConn is a connection to Dovecot's auth service, for many questions at a time. Safe for concurrent use.
type dovecotConn struct {
	conn       net.Conn
	timeout    time.Duration // of each step
	r          *bufio.Reader
	mechanisms []string
	writing    chan struct{} // who writes has put something in
	done       chan struct{} // closed at the end

	mu      sync.Mutex
	last    uint32 // the latest question's id
	waiting map[uint32]chan reply
	retired bool  // it takes no more questions, and ends with the last
	err     error // why it has ended
}

// dovecotAge is how long a connection takes questions. At a reload of its configuration Dovecot leaves the old process to those who
// are connected, and after five seconds ends it with all that it is asked. A variable, so that tests need not wait.
var dovecotAge = 2 * time.Second

var errRetired = errors.New("the connection has become too old")

// dialDovecot connects, and hears what is offered.
func dialDovecot(ctx context.Context, c configs.Auth) (*dovecotConn, error) {
	conn, err := dialUnix(ctx, c.Socket)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	d := &dovecotConn{conn: conn, timeout: c.Timeout, r: bufio.NewReaderSize(conn, maxAuthLine), writing: make(chan struct{}, 1),
		done: make(chan struct{}), waiting: make(map[uint32]chan reply)}
	// Version 2.4 says no more than its version before it has heard ours. With 1.2 an empty first message is one.
	if _, err = fmt.Fprintf(conn, "VERSION\t1\t2\nCPID\t%d\n", os.Getpid()); err == nil {
		d.mechanisms, err = readHandshake(d.r)
	}
	if !stop() || err != nil {
		conn.Close()
		return nil, cmp.Or(context.Cause(ctx), err)
	}
	time.AfterFunc(dovecotAge, d.retire)
	return d, nil
}

// readHandshake reads what the service says before it takes questions, and returns its mechanisms.
func readHandshake(r *bufio.Reader) (mechanisms []string, err error) {
	version := ""
	for range 100 {
		line, err := readAuthLine(r)
		if err != nil {
			return nil, err
		}
		command, rest, _ := strings.Cut(line, "\t")
		first, _, _ := strings.Cut(rest, "\t")
		switch command {
		case "VERSION":
			version = first
		case "MECH":
			mechanisms = append(mechanisms, first)
		case "DONE":
			if version != "1" {
				return nil, fmt.Errorf("version %.20q of the auth protocol", version)
			}
			return mechanisms, nil
		}
	}
	return nil, errors.New("a handshake without an end")
}

// readAuthLine reads a line of at most maxAuthLine octets.
func readAuthLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", errors.New("a line that is too long")
	case errors.Is(err, io.EOF):
		return "", errors.New("the connection has ended")
	case err != nil:
		return "", err
	}
	return string(line[:len(line)-1]), nil
}

// question is one that was asked.
type question struct {
	conn    *dovecotConn
	id      uint32
	replies chan reply
}

// begin asks, and returns the first reply. On an error the question has ended.
func (c *dovecotConn) begin(ctx context.Context, q Query) (*question, reply, error) {
	if !slices.Contains(c.mechanisms, q.Mechanism) {
		return nil, reply{}, fmt.Errorf("no mechanism %s is offered", q.Mechanism) // for asking nevertheless it would cut us off
	}
	question, err := c.ask()
	if err != nil {
		return nil, reply{}, err
	}
	r, err := question.send(ctx, authLine(question.id, q))
	if err != nil {
		question.end()
		return nil, reply{}, err
	}
	return question, r, nil
}

// ask makes a question. Its id is new on the connection.
func (c *dovecotConn) ask() (*question, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.retired {
		return nil, cmp.Or(c.err, errRetired)
	}
	c.last++
	q := &question{c, c.last, make(chan reply, 1)}
	c.waiting[q.id] = q.replies
	return q, nil
}

// goOn answers a challenge.
func (q *question) goOn(ctx context.Context, response []byte) (reply, error) {
	ctx, cancel := withTimeout(ctx, q.conn.timeout)
	defer cancel()
	return q.send(ctx, fmt.Sprintf("CONT\t%d\t%s\n", q.id, wire.EncodeBase64(response)))
}

// send says something of a question, and waits for the reply.
func (q *question) send(ctx context.Context, line string) (reply, error) {
	if len(line) > maxAuthLine {
		return reply{}, fmt.Errorf("%w: longer than Dovecot's auth service reads", ErrDenied)
	}
	if err := q.conn.write(ctx, line); err != nil {
		return reply{}, err
	}
	select {
	case r := <-q.replies:
		return r, nil
	case <-ctx.Done():
		return reply{}, context.Cause(ctx)
	case <-q.conn.done:
	}
	select {
	case r := <-q.replies: // it came before the end
		return r, nil
	default:
		return reply{}, q.conn.err
	}
}

// end forgets a question, of which a reply may still come, and tells Dovecot to do the same if there was none.
func (q *question) end() {
	q.conn.mu.Lock()
	_, open := q.conn.waiting[q.id]
	q.conn.forget(q.id)
	q.conn.mu.Unlock()
	if open {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = q.conn.write(ctx, fmt.Sprintf("CANCEL\t%d\n", q.id)) // nobody waits for it
	}
}

// write sends a line. One that does not go out whole ends the connection.
func (c *dovecotConn) write(ctx context.Context, line string) error {
	select {
	case c.writing <- struct{}{}:
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-c.writing }()
	deadline, _ := ctx.Deadline()
	_ = c.conn.SetWriteDeadline(deadline) // the write says if the connection is closed
	if _, err := io.WriteString(c.conn, line); err != nil {
		c.fail(err)
		return because(ctx, err)
	}
	return nil
}

// listen hands the replies to those who wait for them, until the connection ends, and returns why it did.
func (c *dovecotConn) listen() error {
	for {
		line, err := readAuthLine(c.r)
		if err == nil {
			err = c.take(line)
		}
		if err != nil {
			c.fail(err)
			return c.err
		}
	}
}

// take hands on a reply. One to a question that was given up goes nowhere; but if there is one to what was never asked, nothing else
// on the connection can be believed either.
func (c *dovecotConn) take(line string) error {
	id, r, err := parseReply(line)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if id > c.last {
		return errors.New("a reply to what nobody has asked")
	}
	replies, ok := c.waiting[id]
	if !ok {
		return nil
	}
	select {
	case replies <- r:
	default:
		return errors.New("two replies to one question")
	}
	if r.verdict != "CONT" {
		c.forget(id)
	}
	return nil
}

// forget ends the waiting for replies to a question. It is called with mu held.
func (c *dovecotConn) forget(id uint32) {
	delete(c.waiting, id)
	if c.retired && len(c.waiting) == 0 {
		c.close(errRetired)
	}
}

// retire is called when the connection has its age.
func (c *dovecotConn) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retired = true
	c.forget(0)
}

// fail ends the connection.
func (c *dovecotConn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.close(err)
}

// close ends the connection; the first reason stands. It is called with mu held.
func (c *dovecotConn) close(err error) {
	if c.err == nil {
		c.err = err
		c.conn.Close()
		close(c.done)
	}
}

// ended tells that the connection takes no more questions.
func (c *dovecotConn) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil || c.retired
}

// reply is what Dovecot says of a question: OK, FAIL or CONT.
type reply struct {
	verdict string
	fields  map[string]string // of OK and FAIL; a word without a value has ""
	data    string            // of CONT, in base64
}

// challenge is what the client is to answer.
func (r reply) challenge() ([]byte, error) {
	challenge, err := wire.DecodeBase64(r.data)
	if err != nil {
		return nil, errors.New("a challenge that is no base64")
	}
	return challenge, nil
}

// parseReply reads a line: VERDICT, the question's id, and what is to be known.
func parseReply(line string) (id uint32, r reply, err error) {
	verdict, rest, _ := strings.Cut(line, "\t")
	number, rest, _ := strings.Cut(rest, "\t")
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n == 0 {
		return 0, reply{}, errors.New("a line without the number of a question")
	}
	switch verdict {
	case "CONT":
		data, _, _ := strings.Cut(rest, "\t")
		return uint32(n), reply{verdict: verdict, data: data}, nil
	case "OK", "FAIL":
		return uint32(n), reply{verdict: verdict, fields: parseFields(rest)}, nil
	}
	return 0, reply{}, errors.New("a line that is no reply")
}

// parseFields reads KEY=VALUE and KEY, with tabs between, of which version 2.3 sends too many. The last of two counts, as it does
// for Dovecot's own clients.
func parseFields(text string) map[string]string {
	fields := make(map[string]string)
	for field := range strings.SplitSeq(text, "\t") {
		key, value, _ := strings.Cut(field, "=")
		fields[key] = fromField.Replace(value)
	}
	return fields
}

// How values are written in fields. What is not well escaped keeps its control character, which no name may have.
var (
	toField   = strings.NewReplacer("\x00", "\x010", "\x01", "\x011", "\t", "\x01t", "\r", "\x01r", "\n", "\x01n")
	fromField = strings.NewReplacer("\x010", "\x00", "\x011", "\x01", "\x01t", "\t", "\x01r", "\r", "\x01n", "\n")
)
