package wire

import (
	"bytes"
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
