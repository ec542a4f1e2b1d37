package wire

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

var errBase64 = errors.New("malformed base64")

// DecodeBase64 decodes a SASL message. Nothing but the alphabet and its padding is allowed (RFC 4648 section 3.3): white
// space that one server skips and another does not has been a way past checks (CVE-2026-33603).
func DecodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errBase64
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errBase64
	}
	return b, nil
}

// EncodeBase64 encodes a SASL message.
func EncodeBase64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// MaxQuoted is the length that a quoted string may have in ManageSieve (RFC 5804 section 4).
const MaxQuoted = 1024

// ServerString writes a SASL message as a ManageSieve server sends it: base64 inside of a string (RFC 5804 section 2.1), which
// is a literal where it is too long to be quoted.
func ServerString(message []byte) string { return saslString(message, "") }

// ClientString is ServerString for a client, whose literals are non-synchronising (RFC 5804 section 4).
func ClientString(message []byte) string { return saslString(message, "+") }

func saslString(message []byte, plus string) string {
	encoded := EncodeBase64(message)
	if len(encoded) <= MaxQuoted {
		return `"` + encoded + `"`
	}
	return fmt.Sprintf("{%d%s}\r\n%s", len(encoded), plus, encoded)
}
