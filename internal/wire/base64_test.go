package wire

import (
	"bytes"
	"strings"
	"testing"
)

func TestBase64(t *testing.T) {
	for _, test := range []struct {
		in, out string
		ok      bool
	}{
		{"", "", true},
		{"AGFsaWNlAHNlY3JldA==", "\x00alice\x00secret", true},
		{"+/+/", "\xfb\xff\xbf", true},
		{"YQ==", "a", true},
		{"YWI=", "ab", true},
		{"YQ", "", false},              // no padding
		{"YQ=", "", false},             // half of it
		{"YQ===", "", false},           // too much
		{"=", "", false},               // "=" is for a protocol to understand, not base64
		{"YQ==YQ==", "", false},        // padding inside
		{"YR==", "", false},            // bits that belong to no octet
		{"-_-_", "", false},            // the other alphabet
		{"Y Q=", "", false},            // white space of all kinds: CVE-2026-33603
		{"YQ==\t", "", false},          //
		{"\tYQ==", "", false},          //
		{"YQ\r\n==", "", false},        //
		{"YQ==\n", "", false},          //
		{"YQ==\r", "", false},          //
		{"YW\x00I=", "", false},        //
		{"*", "", false},               // a cancelled exchange is for a protocol to understand
		{"\u212aQ==", "", false},       // a Kelvin sign is no K
		{"YWxpY2U", "", false},         //
		{"YWxpY2U=YWxpY2U", "", false}, //
	} {
		out, err := DecodeBase64(test.in)
		if string(out) != test.out || (err == nil) != test.ok {
			t.Errorf("DecodeBase64(%q) = %q, %v", test.in, out, err)
		}
		if test.ok && EncodeBase64(out) != test.in {
			t.Errorf("EncodeBase64(%q) = %q, want %q", out, EncodeBase64(out), test.in)
		}
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	if back, err := DecodeBase64(EncodeBase64(all)); err != nil || !bytes.Equal(back, all) {
		t.Errorf("octets come back as %q, %v", back, err)
	}
}

// A string that carries base64 is quoted as long as it may be, and then a literal of the kind that the side has.
func TestSASLString(t *testing.T) {
	for _, test := range []struct {
		octets         int
		client, server string // how they begin
	}{
		{0, `""`, `""`},
		{1, `"`, `"`},
		{MaxQuoted / 4 * 3, `"`, `"`},
		{MaxQuoted/4*3 + 1, "{1028+}\r\n", "{1028}\r\n"},
		{9000, "{12000+}\r\n", "{12000}\r\n"},
	} {
		message := strings.Repeat("x", test.octets)
		for got, want := range map[string]string{ClientString([]byte(message)): test.client, ServerString([]byte(message)): test.server} {
			if !strings.HasPrefix(got, want) {
				t.Errorf("%d octets are written as %.20q, want %q", test.octets, got, want)
			}
			args, err := chunked(got+"\r\n", 1000).ReadCommand(nil)
			if err != nil {
				t.Fatal(err)
			}
			s, ok := args.String()
			if back, err := DecodeBase64(s); !ok || err != nil || string(back) != message || !args.End() {
				t.Errorf("%d octets come back as %d, %v, %v", test.octets, len(back), ok, err)
			}
		}
	}
}
