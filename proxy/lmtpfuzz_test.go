package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"jackdaw/configs"
)

// FuzzLMTP lets a client say anything, in reads of any length. It is answered in its protocol, once for each command and once
// for each recipient of a message; the stores hear what they should, and have acknowledged what the client was told.
func FuzzLMTP(f *testing.F) {
	const fickle = "550 5.1.1 no"
	stores := []*lmtpStore{
		newLMTPStore(f, "store1", map[string]string{"RCPT TO:<no": fickle, "end 1": "452 4.2.2 full"}),
		newLMTPStore(f, "store2", map[string]string{"MAIL FROM:<no": fickle, "DATA": "452 4.3.1 later"}),
	}
	settings := lmtpSettings(f, io.Discard, func(c *configs.Config) {
		c.Listen.Listeners[0].TLS = configs.TLSStartTLS
		c.Routes = []configs.Route{{User: []string{"nobody"}, Refuse: "nobody is nobody"},
			{Domain: []string{"b.example"}, To: "store2"}, {To: "store1"}}
	}, stores...)

	seed(f, "lmtp", func(said []byte) {
		said = append([]byte("LHLO x\r\n"), said...)
		f.Add(said, uint16(4096))
		f.Add(said, uint16(1))
	})
	begin := "LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\nRCPT TO:<no>\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<c>\r\n"
	for _, rest := range []string{"DATA\r\n.\r\nNOOP\r\n", "DATA\r\nx\n.\r\nQUIT\r\n.\r\nNOOP\r\n",
		"BDAT 6\r\nQUIT\r\nBDAT 0 LAST\r\nNOOP\r\n", "BDAT 5 LAST\r\nx\n.\r\nRSET\r\n", "BDAT 1\r\nxRSET\r\nBDAT 6\r\nQUIT\r\nNOOP\r\n"} {
		f.Add([]byte(begin+rest+begin+"DATA\r\nx\r\n.\r\n"), uint16(4096))
		f.Add([]byte(begin+rest), uint16(2))
		f.Add([]byte("LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a|b@a.example>\r\nBDAT 2 LAST\r\n\r\n"), uint16(4096))
	}
	f.Fuzz(func(t *testing.T, said []byte, atOnce uint16) {
		client := &scripted{says: bytes.NewReader(said), atOnce: 1 + int(atOnce)}
		hung := time.AfterFunc(patience, func() { panic("the session does not end") })
		serveSession(context.Background(), settings, client)
		hung.Stop()
		model := &lmtpModel{said: string(said), heard: client.heard.String(), got: make(map[string][]string)}
		if err := model.run(); err != nil {
			t.Fatalf("%v\nin %q", err, client.heard.Bytes())
		}
		for _, s := range stores {
			took, strange := s.took()
			if len(strange) > 0 {
				t.Errorf("%s heard %q", s.name, strange)
			}
			var got []string
			for _, mail := range took {
				if len(mail.to) > 0 {
					got = append(got, fmt.Sprintf("%d %q", len(mail.to), mail.body))
				}
				checkEnvelope(t, mail)
			}
			if !slices.Equal(got, model.got[s.name]) {
				t.Errorf("%s has acknowledged %q, and the client was told %q\nin %q", s.name, got, model.got[s.name],
					client.heard.Bytes())
			}
		}
	})
}

var (
	mailSaid = regexp.MustCompile(`^FROM:<[^\x00-\x1f\x7f]*>( (SIZE=\d+|BODY=(7BIT|8BITMIME)|SMTPUTF8|RET=(FULL|HDRS)|ENVID=[!-~]+))*$`)
	rcptSaid = regexp.MustCompile(`^TO:<[^\x00-\x1f\x7f]+>( (NOTIFY=[A-Z,]+|ORCPT=[^\x00- \x7f]+))*$`)
)

func checkEnvelope(t *testing.T, m mail) {
	if !mailSaid.MatchString(m.from) {
		t.Errorf("MAIL %q", m.from)
	}
	for _, to := range m.to {
		if !rcptSaid.MatchString(to) {
			t.Errorf("RCPT %q", to)
		}
	}
}

// lmtpModel reads what a client has said and heard side by side. It knows nothing of why it was answered so.
type lmtpModel struct {
	said, heard string
	accepted    int                 // recipients
	chunks      string              // of the message that comes by BDAT
	got         map[string][]string // what the client was told that stores have, by store
}

// hear takes the next answer, with all its lines.
func (m *lmtpModel) hear() (string, error) {
	for {
		line, rest, err := nextLine([]byte(m.heard))
		m.heard = string(rest)
		switch {
		case err != nil:
			return "", err
		case !lmtpAnswer.MatchString(line) || len(line) > 510:
			return "", fmt.Errorf("malformed answer %q", line)
		case line[3] == ' ':
			return line, nil
		}
	}
}

var lmtpAnswer = regexp.MustCompile(`^(250-[!-~]+( \d*)?|250 [A-Z0-9.]+( \d*)?|(220|354) [ -~]+` +
	`|2\d\d 2\.\d+\.\d+ [ -~]+|4\d\d 4\.\d+\.\d+ [ -~]+|5\d\d 5\.\d+\.\d+ [ -~]+)$`)

// run reads to the end; what is heard behind it is an error.
func (m *lmtpModel) run() error {
	if _, err := m.hear(); err != nil {
		return err
	}
	for {
		line, rest, found := strings.Cut(m.said, "\n")
		if !found && m.heard == "" {
			return nil // half a line is no command
		}
		m.said = rest
		more, err := m.command(line)
		if err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		if more && strings.HasPrefix(m.heard, "421") { // one mistake too many
			if _, err := m.hear(); err != nil {
				return err
			}
			more = false
		}
		if !more {
			break
		}
	}
	if m.heard != "" {
		return fmt.Errorf("behind the end is heard %q", m.heard)
	}
	return nil
}

func (m *lmtpModel) command(line string) (more bool, err error) {
	command, whole := strings.CutSuffix(line, "\r")
	verb, args, _ := strings.Cut(command, " ")
	verb, args = strings.ToUpper(verb), strings.TrimRight(args, " ")
	if !whole || strings.ContainsAny(command, "\r\x00") {
		verb = ""
	}
	if verb == "BDAT" {
		return m.bdat(args)
	}
	answer, err := m.hear()
	if err != nil {
		return false, err
	}
	switch code := answer[:3]; {
	case code == "421" || verb == "QUIT" && code == "221":
		return false, nil
	case verb == "STARTTLS" && code == "220":
		m.heard = ""
		return false, nil
	case verb == "RSET" || verb == "LHLO" || verb == "MAIL" && code == "250":
		m.accepted, m.chunks = 0, ""
	case verb == "RCPT" && code == "250":
		m.accepted++
	case verb == "DATA" && code == "354":
		return m.data()
	}
	return true, nil
}

// data takes a message up to its end.
func (m *lmtpModel) data() (more bool, err error) {
	body, rest, found := strings.Cut("\r\n"+m.said, "\r\n.\r\n")
	if !found {
		return false, nil
	}
	m.said = rest
	body = (body + "\r\n.\r\n")[2:]
	told, err := m.verdicts(body)
	if told && strings.ContainsAny(strings.ReplaceAll(body, "\r\n", ""), "\r\n\x00") {
		err = fmt.Errorf("a message with bare CR or LF was taken: %q", body)
	}
	return true, err
}

func (m *lmtpModel) bdat(args string) (more bool, err error) {
	digits, last := strings.CutSuffix(strings.ToUpper(args), " LAST")
	size, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || strings.HasPrefix(digits, "+") || len(digits) > 20 {
		m.heard = strings.TrimPrefix(m.heard, "501 5.5.4 Malformed BDAT\r\n421 4.7.0 Too many errors\r\n")
		return false, nil
	}
	if size > uint64(len(m.said)) {
		if strings.HasPrefix(m.heard, "50") { // that it is refused may be known before it has come
			_, err = m.hear()
		}
		return false, err
	}
	chunk := m.said[:size]
	m.said = m.said[size:]
	if m.accepted > 0 && last {
		_, err := m.verdicts(m.chunks + chunk)
		return true, err
	}
	answer, err := m.hear()
	if strings.HasPrefix(answer, "250") {
		m.chunks += chunk
	}
	return err == nil, err
}

// verdicts takes an answer for each accepted recipient.
func (m *lmtpModel) verdicts(body string) (told bool, err error) {
	taken := make(map[string]int)
	for range m.accepted {
		answer, err := m.hear()
		if err != nil {
			return false, err
		}
		if strings.HasPrefix(answer, "250") {
			taken[answer[strings.LastIndexByte(answer, ' ')+1:]]++
		}
	}
	for store, n := range taken {
		m.got[store] = append(m.got[store], fmt.Sprintf("%d %q", n, body))
	}
	m.accepted, m.chunks = 0, ""
	return len(taken) > 0, nil
}
