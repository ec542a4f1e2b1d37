package wire

import (
	"encoding/base64"
	"errors"
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
