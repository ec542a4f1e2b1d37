package proxy

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"jackdaw/configs"
)

// FuzzSubmission is to submission what FuzzIMAP is to IMAP.
func FuzzSubmission(f *testing.F) {
	fuzzDialogue(f, configs.Submission, &strictStore{
		greeting: "220 store\r\n",
		hello:    regexp.MustCompile(`^EHLO [!-~]{1,255}\r\n$`),
		offer:    "250-store\r\n250-SIZE 5\r\n250 AUTH PLAIN XOAUTH2 OAUTHBEARER SCRAM-SHA-256\r\n",
		login:    regexp.MustCompile(`^AUTH ([A-Z0-9-]+) ([A-Za-z0-9+/=]+)\r\n$`),
		response: regexp.MustCompile(`^([A-Za-z0-9+/=]*)\r\n$`),
		logout:   "QUIT\r\n", challenge: "334 Y2hhbGxlbmdl\r\n", no: "535 no\r\n", ok: "235 in\r\n",
	}, checkSubmission)
}

var submissionAnswer = regexp.MustCompile(`^(2\d\d|334|4\d\d|5\d\d)[ -][ -~]*$`)

// checkSubmission reads what an SMTP client reads before login.
func checkSubmission(answers []byte) error {
	for len(answers) > 0 {
		line, rest, err := nextLine(answers)
		switch {
		case err != nil:
			return err
		case !submissionAnswer.MatchString(line):
			return fmt.Errorf("malformed answer %q", line)
		case line == "220 2.0.0 begin TLS":
			return nil // what follows is TLS
		}
		answers = rest
	}
	return nil
}

// FuzzSubmissionGuard compares the guard with what it is to do, however the octets are parted. The client says all that it
// has to say before the store answers anything.
func FuzzSubmissionGuard(f *testing.F) {
	for _, client := range []string{"EHLO x\r\nMAIL FROM:<>\r\n", "EHLO x\r\nSTARTTLS\r\n", "MAIL FROM:<>\r\nSTARTTLS\r\n", "starttls \n", ""} {
		for _, store := range []string{
			"250-a\r\n250-STARTTLS\r\n250 b\r\n250 ok\r\n250-STARTTLS\r\n250 x\r\n", "250-a\r\n250-b\r\n250 starttls\r\n", "250 STARTTLS\r\n",
			"250-STARTTLS\r\n250 STARTTLS\r\n", "250-a\r\n250 STARTTLS\n", "2\r\n250-", "\n\n\n", strings.Repeat("250-x\r\n", 700),
		} {
			f.Add([]byte(client), []byte(store), uint8(3))
		}
	}
	f.Fuzz(func(t *testing.T, client, store []byte, size uint8) {
		g := &submissionGuard{}
		sent, err := inPieces(client, int(size), func(p []byte) ([]byte, error) {
			n, err := g.Up(p)
			return p[:n], err
		})
		commands, stopped := commandsBeforeMail(client)
		if (err != nil) != stopped || !bytes.HasPrefix(client, sent) || err == nil && len(sent) < len(client) {
			t.Fatalf("%q was sent, and %v", sent, err)
		}
		if stopped && bytes.HasSuffix(sent, []byte("\n")) && !bytes.HasSuffix(client, sent) {
			t.Errorf("the end of the line was sent, too: %q", sent)
		}
		got, _ := inPieces(store, int(size), func(p []byte) ([]byte, error) { return g.Down(bytes.Clone(p)), nil })
		if len(g.held) == 0 && len(got) > len(store)+1 {
			t.Errorf("%q has become longer: %q", store, got)
		}
		for n := 1; commands < 0 || n <= commands; n++ { // what the client reads as the answers to its first commands
			end := endOfReply(got)
			if end == 0 {
				break
			}
			reply := got[:end]
			if got = got[end:]; len(got) < maxHeld && regexp.MustCompile(`(?i)^250-[^\n]*\n(250[ -][^\n]*\n)*250[ -]STARTTLS\s*\n`).Match(reply) {
				t.Errorf("reply %d is %q", n, reply)
			}
		}
	})
}

// inPieces hands p on in pieces, and returns what comes out.
func inPieces(p []byte, size int, pass func([]byte) ([]byte, error)) (out []byte, err error) {
	for err == nil && len(p) > 0 {
		n := min(max(size, 1), len(p))
		var passed []byte
		passed, err = pass(p[:n])
		out, p = append(out, passed...), p[n:]
	}
	return out, err
}

// commandsBeforeMail counts the client's lines up to the first MAIL; -1 without one. stopped: STARTTLS comes before it.
func commandsBeforeMail(client []byte) (n int, stopped bool) {
	for line := range bytes.Lines(client) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		n++
		begun := string(line[:min(len(line)-1, len("STARTTLS "))]) // what comes behind that does not matter
		verb, _, _ := strings.Cut(strings.TrimRight(begun, "\r"), " ")
		switch {
		case strings.EqualFold(verb, "STARTTLS"):
			return n, true
		case strings.EqualFold(verb, "MAIL"):
			return n, false
		}
	}
	return -1, false
}
