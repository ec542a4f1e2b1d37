package wire

import (
	"strings"
	"testing"
)

func TestParam(t *testing.T) {
	for _, test := range []struct {
		said, name, value, rest string
	}{
		{" SMTPUTF8", "SMTPUTF8", "", ""},
		{" size=1000 BODY=8BITMIME", "SIZE", "1000", " BODY=8BITMIME"},
		{"  A-1=<a@b>", "A-1", "<a@b>", ""},
		{" ORCPT=utf-8;ä@a.example", "ORCPT", "utf-8;ä@a.example", ""},
		{" A=b=c", "A", "b", "=c"},
	} {
		args := NewArgs(test.said)
		name, value, ok := args.Param()
		if !ok || name != test.name || value != test.value || args.Rest() != test.rest {
			t.Errorf("%q is read as %q = %q, %v", test.said, name, value, ok)
		}
	}
	for _, said := range []string{"", " ", "SIZE=1", " =1", " SIZE=", " SIZE= 1", " -A=1", " A=\x01", " A=\x7f", " A=\xff", " A=\u0085", " <a>", " A=\t", "\tA"} {
		args := NewArgs(said)
		if name, value, ok := args.Param(); ok || args.Rest() != said {
			t.Errorf("%q is read as %q = %q", said, name, value)
		}
	}
}

func TestReadXText(t *testing.T) {
	for said, want := range map[string]string{"abc": "abc", "a+2Bb+3D+20c": "a+b= c", "rfc822;a@b": "rfc822;a@b", "+7E": "~"} {
		if got, ok := ReadXText(said); got != want || !ok || XText(got) != strings.ReplaceAll(said, "+7E", "~") {
			t.Errorf("%q is %q, %v", said, got, ok)
		}
	}
	for _, said := range []string{"", "+", "a+2", "+2b", "+2g", "+-1", "++1", "a=b", "a b", "+0D+0A", "+00", "+7F", "+C3+A4", "ä", "a\r\n", "+\u00b2"} {
		if got, ok := ReadXText(said); ok {
			t.Errorf("%q is %q", said, got)
		}
	}
}

// What a client writes is written anew, and means the same.
func FuzzXText(f *testing.F) {
	f.Add("a+2Bb")
	f.Fuzz(func(t *testing.T, said string) {
		if got, ok := ReadXText(said); ok {
			again, ok := ReadXText(XText(got))
			if !ok || again != got || strings.ContainsAny(XText(got), " =\r\n\x00") {
				t.Errorf("%q is %q, written %q", said, got, XText(got))
			}
		}
		if again, ok := ReadXText(XText(said)); ok && again != said {
			t.Errorf("%q comes back as %q", said, again)
		}
	})
}

func TestReplyLine(t *testing.T) {
	for _, test := range []struct {
		code  int
		lines string
		want  string
	}{
		{250, "2.1.5 OK", "250 2.1.5 OK"},
		{250, "2.0.0 <alice> x+y Saved", "250 2.0.0 <alice> x+y Saved"},
		{550, "no such user", "550 5.0.0 no such user"},
		{452, "4.2.2 over|4.2.2 quota|by much", "452 4.2.2 over quota by much"},
		{550, "Mailbox unknown.|5.1.1 User unknown", "550 5.1.1 Mailbox unknown. User unknown"},
		{450, "5.1.1 class is wrong", "450 4.0.0 5.1.1 class is wrong"},
		{550, "5.1 x", "550 5.0.0 5.1 x"},
		{550, "5.1.1000 x", "550 5.0.0 5.1.1000 x"},
		{550, "5.1.+1 x", "550 5.0.0 5.1.+1 x"},
		{550, "5..1 x", "550 5.0.0 5..1 x"},
		{550, "5.1.1", "550 5.1.1"},
		{550, "", "550 5.0.0"},
		{550, "5.7.1 a\r\n250 2.0.0 b\x00\tä", "550 5.7.1 a??250 2.0.0 b???"},
		{550, "5.7.1 " + x(600), "550 5.7.1 " + x(500)},
	} {
		if got := (Reply{test.code, strings.Split(test.lines, "|")}).Line(); got != test.want {
			t.Errorf("%d %q is %q, want %q", test.code, test.lines, got, test.want)
		}
	}
	if got := (Reply{Code: 250}).Line(); got != "250 2.0.0" {
		t.Error(got)
	}
}
