package proxy

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"jackdaw/configs"
)

// FuzzPOP3 is to POP3 what FuzzIMAP is to IMAP. Its store has no PLAIN, so that names and passwords come to it as they are.
func FuzzPOP3(f *testing.F) {
	fuzzDialogue(f, configs.POP3, &strictStore{
		greeting: "+OK store\r\n",
		hello:    regexp.MustCompile(`^CAPA\r\n$`),
		offer:    "+OK\r\nTOP\r\nUSER\r\nSASL XOAUTH2 OAUTHBEARER SCRAM-SHA-256\r\n.\r\n",
		login:    regexp.MustCompile(`^AUTH ([A-Z0-9-]+)(?: ([A-Za-z0-9+/=]{1,240}))?\r\n$`),
		response: regexp.MustCompile(`^([A-Za-z0-9+/=]*)\r\n$`),
		logout:   "QUIT\r\n", challenge: "+ Y2hhbGxlbmdl\r\n", no: "-ERR no\r\n", ok: "+OK in\r\n",
		commands: userPass,
	}, checkPOP3)
}

var userCommand = regexp.MustCompile(`^USER ([^ \x00\r\n]+)\r\n$`)
var passCommand = regexp.MustCompile(`^PASS ([^\x00\r\n]+)\r\n$`)

func userPass(first string, next func() string) string {
	user := userCommand.FindStringSubmatch(first)
	if user == nil {
		return ""
	}
	password := passCommand.FindStringSubmatch(next())
	if password == nil {
		return ""
	}
	return "\x00" + user[1] + "\x00" + password[1]
}

var pop3Answer = regexp.MustCompile(`^(\+OK [!-~][ -~]*|-ERR [!-~][ -~]*|\+ [A-Za-z0-9+/=]*)$`)
var pop3ListLine = regexp.MustCompile(`^[A-Z][ -~]*$`)

// checkPOP3 reads what a POP3 client reads before login.
func checkPOP3(answers []byte) error {
	for list := false; len(answers) > 0; {
		line, rest, err := nextLine(answers)
		switch {
		case err != nil:
			return err
		case list && line == ".":
			list = false
		case list && pop3ListLine.MatchString(line):
		case list || !pop3Answer.MatchString(line):
			return fmt.Errorf("malformed answer %q", line)
		case line == "+OK begin TLS":
			return nil // what follows is TLS
		default:
			list = strings.HasSuffix(line, " follow")
		}
		answers = rest
	}
	return nil
}
