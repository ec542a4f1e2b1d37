package main

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"jackdaw/internal/wire"
)

// demoScripts is a ManageSieve store in memory for one user, as small as RFC 5804 allows: it keeps scripts and believes
// that all of them are correct.
type demoScripts struct {
	user, password string

	mu      sync.Mutex
	scripts map[string]string
	active  string
}

// serveDemoSieve serves until the socket is closed.
func serveDemoSieve(socket net.Listener, scripts *demoScripts) {
	for {
		conn, err := socket.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			s := &demoSieveSession{scripts: scripts, c: wire.New(conn)}
			s.capabilities()
			for s.command() {
			}
			_ = s.c.Flush()
		}()
	}
}

// demoSieveSession is one connection to the store.
type demoSieveSession struct {
	scripts  *demoScripts
	c        *wire.Conn
	loggedIn bool
}

func (s *demoSieveSession) capabilities() {
	s.c.Send("\"IMPLEMENTATION\" \"demo\"\r\n\"SASL\" \"PLAIN\"\r\n\"SIEVE\" \"fileinto vacation\"\r\n\"VERSION\" \"1.0\"\r\nOK\r\n")
}

func (s *demoSieveSession) ok() bool { s.c.Send("OK\r\n"); return true }

func (s *demoSieveSession) no(text string) bool { s.c.Send("NO \"", text, "\"\r\n"); return true }

// command answers one command, and tells whether another may follow.
func (s *demoSieveSession) command() bool {
	args, err := s.c.ReadCommand(nil)
	if err != nil {
		return false
	}
	name, _ := args.Atom()
	var strs []string
	for args.Space() {
		text, ok := args.String()
		if !ok {
			text, _ = args.Word() // HAVESPACE has a number
		}
		strs = append(strs, text)
	}
	for len(strs) < 2 {
		strs = append(strs, "")
	}
	switch name = strings.ToUpper(name); {
	case name == "LOGOUT":
		s.ok()
		return false
	case name == "CAPABILITY":
		s.capabilities()
		return true
	case name == "NOOP":
		return s.ok()
	case name == "AUTHENTICATE" && !s.loggedIn:
		return s.authenticate(strs[1])
	case !s.loggedIn:
		return s.no("log in first")
	}
	return s.script(name, strs[0], strs[1])
}

func (s *demoSieveSession) authenticate(initial string) bool {
	response, err := wire.DecodeBase64(initial)
	s.loggedIn = err == nil && string(response) == "\x00"+s.scripts.user+"\x00"+s.scripts.password
	if !s.loggedIn {
		return s.no("wrong password")
	}
	return s.ok()
}

// script answers the commands of a user who is logged in (RFC 5804 sections 2.5 to 2.12).
func (s *demoSieveSession) script(command, name, content string) bool {
	m := s.scripts
	m.mu.Lock()
	defer m.mu.Unlock()
	_, exists := m.scripts[name]
	switch command {
	case "HAVESPACE", "CHECKSCRIPT":
		return s.ok()
	case "PUTSCRIPT":
		m.scripts[name] = content
		return s.ok()
	case "LISTSCRIPTS":
		s.list()
		return s.ok()
	}
	if !exists && !(command == "SETACTIVE" && name == "") {
		return s.no("no such script or command")
	}
	switch command {
	case "SETACTIVE":
		m.active = name
	case "GETSCRIPT":
		s.c.Send(fmt.Sprintf("{%d}\r\n%s\r\n", len(m.scripts[name]), m.scripts[name]))
	case "DELETESCRIPT":
		if name == m.active {
			return s.no("script is active")
		}
		delete(m.scripts, name)
	case "RENAMESCRIPT":
		m.scripts[content] = m.scripts[name]
		delete(m.scripts, name)
		if m.active == name {
			m.active = content
		}
	default:
		return s.no("no such command")
	}
	return s.ok()
}

func (s *demoSieveSession) list() {
	var names []string
	for name := range s.scripts.scripts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		line, err := wire.Quote(name)
		if err != nil {
			continue
		}
		if name == s.scripts.active {
			line += " ACTIVE"
		}
		s.c.Send(line, "\r\n")
	}
}
