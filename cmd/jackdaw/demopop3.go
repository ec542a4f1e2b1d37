package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"jackdaw/internal/wire"
)

// servePOP3 serves the user's INBOX by POP3, as small as RFC 1939 allows. What it serves it fetches by IMAP.
func (s *demoStore) servePOP3(socket net.Listener) func() {
	go func() {
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				session := &demoPOP3{store: s, c: wire.New(conn), deleted: make(map[int]bool)}
				session.ok("demo ready")
				for session.command() {
				}
				_ = session.c.Flush()
			}()
		}
	}()
	return func() { _ = socket.Close() }
}

// demoPOP3 is one connection to the store.
type demoPOP3 struct {
	store    *demoStore
	c        *wire.Conn
	user     string
	loggedIn bool
	drop     []*imapclient.FetchMessageBuffer // what was there at the login
	deleted  map[int]bool
}

// demoBody is a whole message, which is not marked as seen.
var demoBody = &imap.FetchItemBodySection{Peek: true}

func (s *demoPOP3) ok(text string) bool { s.c.Send("+OK ", text, "\r\n"); return true }

func (s *demoPOP3) err(text string) bool { s.c.Send("-ERR ", text, "\r\n"); return true }

// lines sends a multi-line response (RFC 1939 section 3).
func (s *demoPOP3) lines(text string) bool {
	s.ok("")
	text = strings.TrimSuffix(text, "\r\n")
	s.c.Send(strings.ReplaceAll("\r\n"+text, "\r\n.", "\r\n..")[len("\r\n"):], "\r\n.\r\n")
	return true
}

// command answers one command, and tells whether another may follow.
func (s *demoPOP3) command() bool {
	line, err := s.c.ReadLine()
	if err != nil {
		return false
	}
	name, arg, _ := strings.Cut(string(line), " ")
	switch name = strings.ToUpper(name); {
	case name == "CAPA":
		return s.lines("USER\r\nSASL PLAIN\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nIMPLEMENTATION demo\r\n")
	case name == "QUIT":
		return s.quit()
	case s.loggedIn:
		return s.maildrop(name, arg)
	case name == "USER":
		s.user = arg
		return s.ok("")
	case name == "PASS":
		return s.login(s.user, arg)
	case name == "AUTH":
		return s.auth(arg)
	}
	return s.err("log in first")
}

// auth is SASL PLAIN with an initial response (RFC 5034 section 4).
func (s *demoPOP3) auth(arg string) bool {
	_, initial, _ := strings.Cut(arg, " ")
	if initial == "" { // it was too long for the line
		s.c.Send("+ \r\n")
		line, err := s.c.ReadLine()
		if err != nil {
			return false
		}
		initial = string(line)
	}
	message, err := wire.DecodeBase64(initial)
	if parts := strings.Split(string(message), "\x00"); err == nil && len(parts) == 3 {
		return s.login(parts[1], parts[2])
	}
	return s.err("no SASL PLAIN")
}

func (s *demoPOP3) login(user, password string) bool {
	if !s.store.login(user, password) {
		return s.err("[AUTH] wrong password")
	}
	err := s.inbox(func(client *imapclient.Client, all imap.SeqSet) (err error) {
		s.drop, err = client.Fetch(all, &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{demoBody}}).Collect()
		return err
	})
	if err != nil {
		return s.err("[SYS/TEMP] " + err.Error())
	}
	s.loggedIn = true
	return s.ok("")
}

// inbox does something with all messages of the INBOX.
func (s *demoPOP3) inbox(action func(*imapclient.Client, imap.SeqSet) error) error {
	client, err := imapclient.DialInsecure(s.store.Addresses["imap"], nil)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Login(s.store.User(), s.store.Password).Wait(); err != nil {
		return err
	}
	selected, err := client.Select("INBOX", nil).Wait()
	if err != nil || selected.NumMessages == 0 {
		return err
	}
	var all imap.SeqSet
	all.AddRange(1, 0) // 0 is the last
	return action(client, all)
}

// maildrop answers the commands of a user who is logged in (RFC 1939 sections 5 and 7).
func (s *demoPOP3) maildrop(name, arg string) bool {
	i, err := strconv.Atoi(arg)
	exists := err == nil && 1 <= i && i <= len(s.drop) && !s.deleted[i]
	switch {
	case name == "STAT":
		count, size := 0, 0
		s.each(func(_ int, _ imap.UID, message string) { count, size = count+1, size+len(message) })
		return s.ok(fmt.Sprint(count, " ", size))
	case name == "RSET":
		clear(s.deleted)
		return s.ok("")
	case name == "NOOP":
		return s.ok("")
	case arg == "" && (name == "LIST" || name == "UIDL"):
		var list strings.Builder
		s.each(func(i int, uid imap.UID, message string) {
			list.WriteString(demoListing(name, i, uid, message) + "\r\n")
		})
		return s.lines(list.String())
	case !exists:
		return s.err("no such message or command")
	case name == "LIST" || name == "UIDL":
		return s.ok(demoListing(name, i, s.drop[i-1].UID, s.message(i)))
	case name == "RETR":
		return s.lines(s.message(i))
	case name == "DELE":
		s.deleted[i] = true
		return s.ok("")
	}
	return s.err("no such command")
}

// each goes over the messages that are not deleted.
func (s *demoPOP3) each(action func(i int, uid imap.UID, message string)) {
	for n, m := range s.drop {
		if i := n + 1; !s.deleted[i] {
			action(i, m.UID, s.message(i))
		}
	}
}

func (s *demoPOP3) message(i int) string { return string(s.drop[i-1].FindBodySection(demoBody)) }

// demoListing is a message's line in LIST or UIDL.
func demoListing(name string, i int, uid imap.UID, message string) string {
	if name == "UIDL" {
		return fmt.Sprint(i, " ", uid)
	}
	return fmt.Sprint(i, " ", len(message))
}

// quit removes what was deleted (RFC 1939 section 6).
func (s *demoPOP3) quit() bool {
	err := s.inbox(func(client *imapclient.Client, _ imap.SeqSet) error {
		var gone imap.UIDSet
		for i := range s.deleted {
			gone.AddNum(s.drop[i-1].UID)
		}
		if len(gone) == 0 {
			return nil
		}
		flags := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}
		if err := client.Store(gone, flags, nil).Close(); err != nil {
			return err
		}
		return client.UIDExpunge(gone).Close()
	})
	if err != nil {
		s.err("some messages are left")
	} else {
		s.ok("bye")
	}
	return false
}
