package proxy

import (
	"strings"

	"github.com/xdg-go/scram"

	"jackdaw/internal/wire"
)

// scram is a client of SCRAM-SHA-256 in IMAP or POP3, behind the empty challenge. Its proof is the last that it has to say, unless the
// server proves itself, too: then it says nothing in turn.
func (p *player) scram(user, password string) {
	p.t.Helper()
	client, err := scram.SHA256.NewClient(user, password, "")
	p.must(err)
	conversation := client.NewConversation()
	challenge := ""
	for range 2 {
		response, err := conversation.Step(challenge)
		p.must(err)
		p.write(p.client, wire.EncodeBase64([]byte(response))+"\r\n")
		p.setDeadlines()
		if next, err := p.read.Peek(1); err != nil || next[0] != '+' {
			return
		}
		p.expect(p.read, "client", func(line string) bool {
			decoded, err := wire.DecodeBase64(strings.TrimPrefix(line, "+ "))
			challenge = string(decoded)
			return err == nil
		}, "a challenge")
	}
	_, err = conversation.Step(challenge)
	p.must(err)
	p.write(p.client, "\r\n")
}
