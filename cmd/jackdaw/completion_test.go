package main

import (
	"bytes"
	"strings"
	"testing"
)

// What a shell offers are values that the command takes, and files only where it takes those (:0). It leaves out by itself what does not
// begin as the word does.
func TestCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"kick --state ":              "handshake login relay delivery :4",
		"sessions --service pop":     "imap imaps pop3 pop3s submission submissions sieve lmtp :4",
		"log ":                       "debug info warn error :4",
		"log debug ":                 ":4",
		"where ":                     ":4",
		"move anna --socket nobody ": ":4",
		"drain --socket nobody ":     ":4",
		"check -c ":                  ":0",
		"trace anna --to ":           ":0",
	} {
		var out, errOut bytes.Buffer
		words := strings.Fields(line)
		if strings.HasSuffix(line, " ") {
			words = append(words, "")
		}
		if status := run(append([]string{"__complete"}, words...), &out, &errOut); status != exitGood {
			t.Errorf("%q: exit status %d: %s", line, status, errOut.String())
		}
		if got := strings.Join(strings.Fields(out.String()), " "); got != want {
			t.Errorf("%q: offered is %q, want %q", line, got, want)
		}
	}
}
