package main

import (
	"bufio"
	"net"
	"strings"
	"testing"
)

// TestStore: it lets in whoever has the password, in all the ways in which proxies say it, and nobody else.
func TestStore(t *testing.T) {
	for _, tt := range []struct{ protocol, conversation string }{
		{"imap", `* OK|a LOGIN u secret|a OK|b NOOP|b OK|c IDLE|+|DONE|c OK|d LOGOUT|* BYE|-|d OK`},
		{"imap", `* OK|a LOGIN {1}|+|u {6}|+|secret|a OK [CAPABILITY`},
		{"imap", `* OK|a LOGIN "u" "secret"|a OK|b FETCH 5|* 1 FETCH (BODY[] {5}|-|01234)|-|b OK`},
		{"imap", `* OK|a AUTHENTICATE PLAIN|+|AHUAc2VjcmV0|a OK|b APPEND INBOX {4+}` + "\r\n" + `abcd|b OK`},
		{"imap", `* OK|a AUTHENTICATE PLAIN AHUAc2VjcmV0|a OK`},
		{"imap", `* OK|a AUTHENTICATE PLAIN AHUAd3Jvbmc=|a NO|b LOGIN u invented-X|b NO|c LOGIN|c NO`},
		{"pop3", `+OK|USER u|+OK|PASS secret|+OK|QUIT|+OK`},
		{"pop3", `+OK|AUTH PLAIN|+|AHUAc2VjcmV0|+OK`},
		{"pop3", `+OK|AUTH PLAIN AHUAc2VjcmV0|+OK`},
		{"pop3", `+OK|USER u|+OK|PASS invented-X|-ERR`},
		{"submission", `220 |EHLO c|250-|-|250-|-|250 AUTH|AUTH PLAIN AHUAc2VjcmV0|235 |QUIT|221 `},
		{"submission", `220 |AUTH PLAIN|334 |AHUAd3Jvbmc=|535 `},
		{"sieve", `"I|-|"S|-|"S|-|"V|-|OK|AUTHENTICATE "PLAIN" "AHUAc2VjcmV0"|OK|LOGOUT|OK`},
		{"sieve", `"I|-|"S|-|"S|-|"V|-|OK|AUTHENTICATE "PLAIN" {12+}` + "\r\n" + `AHUAc2VjcmV0|OK`},
		{"sieve", `"I|-|"S|-|"S|-|"V|-|OK|AUTHENTICATE "PLAIN" "AHUAd3Jvbmc="|NO`},
	} {
		near, far := net.Pipe()
		go func() {
			v := &visitor{far, bufio.NewReader(far), bufio.NewWriterSize(far, 512)}
			_ = talks[tt.protocol](v)
			_ = v.out.Flush()
		}()
		lines := bufio.NewReader(near)
		for i, turn := range strings.Split(tt.conversation, "|") {
			if i%2 == 0 {
				if line, err := lines.ReadString('\n'); !strings.HasPrefix(line, turn) {
					t.Errorf("%s: %q, %v; want %q in %s", tt.protocol, line, err, turn, tt.conversation)
					break
				}
			} else if turn != "-" { // the store goes on
				_, _ = near.Write([]byte(turn + "\r\n"))
			}
		}
		near.Close()
	}
}
