package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// password is that of all users. The store refuses all others, as jackdaw has to see before it trusts it.
const password = "secret"

// protocols are those of the store, and that of the server which nginx asks.
var protocols = []string{"imap", "pop3", "submission", "sieve", "auth"}

// talks are the protocols of the store, each until its visitor leaves.
var talks = map[string]func(*visitor) error{
	"imap":       (*visitor).imap,
	"pop3":       (*visitor).pop3,
	"submission": (*visitor).submission,
	"sieve":      (*visitor).sieve,
}

// serveStore is a mail store that knows just enough of each protocol, in the clear. Its arguments are "protocol=address", and
// "auth=address" for the server that nginx asks.
func serveStore(args []string) error {
	failed := make(chan error)
	stores := make(map[string]string)
	for _, arg := range args {
		protocol, address, _ := strings.Cut(arg, "=")
		stores[protocol] = address
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		if protocol == "auth" {
			go func() { failed <- serveAuth(l, stores) }()
		} else {
			go func() { failed <- serve(l, talks[protocol]) }()
		}
	}
	return <-failed
}

func serve(l net.Listener, talk func(*visitor) error) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			v := &visitor{conn, bufio.NewReader(conn), bufio.NewWriterSize(conn, 512)}
			_ = talk(v) // whatever it is, the visitor notices first
			_ = v.out.Flush()
		}()
	}
}

// visitor is a connection to the store.
type visitor struct {
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
}

func (v *visitor) say(lines ...string) {
	for _, line := range lines {
		_, _ = v.out.WriteString(line)
		_, _ = v.out.WriteString("\r\n")
	}
}

// read returns the next line without its end. What was said until now goes out before, unless there is more to answer.
func (v *visitor) read() ([]byte, error) {
	if v.in.Buffered() == 0 {
		if err := v.out.Flush(); err != nil {
			return nil, err
		}
	}
	line, err := v.in.ReadSlice('\n')
	return bytes.TrimRight(line, "\r\n"), err
}

// command reads a line with the literals in it, {n} and {n+}, which take the place of strings.
func (v *visitor) command() (string, error) {
	read, err := v.read()
	line := string(read)
	for err == nil && strings.HasSuffix(line, "}") && !strings.Contains(line, "APPEND") {
		n, wait := literal(line)
		if wait {
			v.say("+ go on")
			if err = v.out.Flush(); err != nil {
				break
			}
		}
		value := make([]byte, n)
		if _, err = io.ReadFull(v.in, value); err != nil {
			break
		}
		read, err = v.read()
		line = line[:strings.LastIndexByte(line, '{')] + string(value) + string(read)
	}
	return line, err
}

// literal reads the end of a line, and tells whether its peer waits to be asked for what follows.
func literal(line string) (n int, wait bool) {
	digits, nonSync := strings.CutSuffix(line[strings.LastIndexByte(line, '{')+1:len(line)-1], "+")
	n, _ = strconv.Atoi(digits)
	return n, !nonSync
}

// plain judges a SASL PLAIN response (RFC 4616), which is in the command already, or asked for.
func (v *visitor) plain(initial, ask string) (bool, error) {
	if initial == "" {
		v.say(ask)
		var err error
		if initial, err = v.command(); err != nil {
			return false, err
		}
	}
	response, err := base64.StdEncoding.DecodeString(strings.Trim(initial, `"`))
	return err == nil && bytes.HasSuffix(response, []byte("\x00"+password)), nil
}

// knows judges the arguments of a command, of which the password is the last.
func knows(args []string) bool {
	return len(args) > 0 && strings.Trim(args[len(args)-1], `"`) == password
}

// word returns a word of a command, "" if there are not so many.
func word(words []string, i int) string {
	if i < len(words) {
		return words[i]
	}
	return ""
}

const imapCapability = "CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID IDLE AUTH=PLAIN"

// imap greets, logs in, and has messages of any size: "FETCH n" brings n bytes, and APPEND takes what its literal says.
func (v *visitor) imap() error {
	v.say("* OK [" + imapCapability + "] store ready")
	for {
		line, err := v.command()
		if err != nil {
			return err
		}
		words := strings.Fields(line)
		answer, err := v.imapCommand(line, words)
		if answer != "" {
			v.say(word(words, 0) + " " + answer)
		}
		if err != nil {
			return err
		}
	}
}

// imapCommand does what a command asks for, and returns its answer, without the tag.
func (v *visitor) imapCommand(line string, words []string) (answer string, err error) {
	answer, known := "OK done", true
	switch strings.ToUpper(word(words, 1)) {
	case "NOOP":
	case "IDLE":
		v.say("+ idling")
		_, err = v.read() // DONE
	case "CAPABILITY":
		v.say("* " + imapCapability)
	case "ID":
		v.say("* ID NIL")
	case "LOGIN":
		answer, known = "OK ["+imapCapability+"] welcome", knows(words[2:])
	case "AUTHENTICATE":
		answer = "OK [" + imapCapability + "] welcome"
		known, err = v.plain(word(words, 3), "+ ")
	case "FETCH":
		err = v.fetch(word(words, 2))
	case "APPEND":
		n, _ := literal(line)
		err = v.take(n + len("\r\n"))
	case "LOGOUT":
		v.say("* BYE")
		err = io.EOF
	default:
		known = false
	}
	if !known {
		answer = "NO denied"
	}
	return answer, err
}

// block is what messages are made of.
var block = bytes.Repeat([]byte("0123456789abcdef"), 1<<16)

func (v *visitor) fetch(size string) error {
	n, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	v.say(fmt.Sprintf("* 1 FETCH (BODY[] {%d}", n))
	for n > 0 && err == nil {
		part := block[:min(n, len(block))]
		_, err = v.out.Write(part)
		n -= len(part)
	}
	v.say(")")
	return err
}

// take reads that much for nobody.
func (v *visitor) take(n int) error {
	part := make([]byte, 1<<16)
	for n > 0 {
		read, err := v.in.Read(part[:min(n, len(part))])
		if err != nil {
			return err
		}
		n -= read
	}
	return nil
}

func (v *visitor) pop3() error {
	v.say("+OK store ready")
	for {
		line, err := v.command()
		if err != nil {
			return err
		}
		words := strings.Fields(line)
		ok := true
		switch strings.ToUpper(word(words, 0)) {
		case "NOOP", "USER":
		case "CAPA":
			v.say("+OK", "USER", "SASL PLAIN", ".")
			continue
		case "PASS":
			ok = knows(words[1:])
		case "AUTH":
			if ok, err = v.plain(word(words, 2), "+ "); err != nil {
				return err
			}
		case "QUIT":
			v.say("+OK")
			return nil
		default:
			ok = false
		}
		v.answer(ok, "+OK done", "-ERR denied")
	}
}

func (v *visitor) answer(ok bool, yes, no string) {
	if ok {
		v.say(yes)
	} else {
		v.say(no)
	}
}

func (v *visitor) submission() error {
	v.say("220 store ready")
	for {
		line, err := v.command()
		if err != nil {
			return err
		}
		words := strings.Fields(line)
		switch strings.ToUpper(word(words, 0)) {
		case "EHLO":
			v.say("250-store", "250-8BITMIME", "250 AUTH PLAIN")
		case "HELO", "NOOP", "RSET":
			v.say("250 done")
		case "AUTH":
			ok, err := v.plain(word(words, 2), "334 ")
			if err != nil {
				return err
			}
			v.answer(ok, "235 welcome", "535 denied")
		case "QUIT":
			v.say("221 bye")
			return nil
		default:
			v.say("500 unknown")
		}
	}
}

var sieveCapability = []string{`"IMPLEMENTATION" "store"`, `"SIEVE" "fileinto"`, `"SASL" "PLAIN"`, `"VERSION" "1.0"`, "OK"}

func (v *visitor) sieve() error {
	v.say(sieveCapability...)
	for {
		line, err := v.command()
		if err != nil {
			return err
		}
		words := strings.Fields(line)
		switch strings.ToUpper(word(words, 0)) {
		case "CAPABILITY":
			v.say(sieveCapability...)
		case "NOOP":
			v.say("OK")
		case "AUTHENTICATE":
			ok, err := v.plain(word(words, 2), `""`)
			if err != nil {
				return err
			}
			v.answer(ok, "OK", "NO denied")
		case "LOGOUT":
			v.say("OK")
			return nil
		default:
			v.say("NO unknown")
		}
	}
}
