package wire

import (
	"strings"
	"testing"
)

func TestPath(t *testing.T) {
	for _, test := range []struct {
		said string
		want Path
		as   string // how it is written again; "" for as it was said
	}{
		{"<>", Path{}, ""},
		{"<alice@a.example>", Path{"alice", "a.example"}, ""},
		{"<Alice.B+Folder@A.Example>", Path{"Alice.B+Folder", "A.Example"}, ""},
		{"<alice>", Path{"alice", ""}, ""},
		{"<alice@localhost>", Path{"alice", "localhost"}, ""},
		{"<alice@a_b.example>", Path{"alice", "a_b.example"}, ""},
		{"<!#$%&'*+-/=?^_`{|}~@a.example>", Path{"!#$%&'*+-/=?^_`{|}~", "a.example"}, ""},
		{"<alice@[192.0.2.1]>", Path{"alice", "[192.0.2.1]"}, ""},
		{"<alice@[IPv6:2001:db8::1]>", Path{"alice", "[IPv6:2001:db8::1]"}, ""},
		{`<"alice"@a.example>`, Path{"alice", "a.example"}, "<alice@a.example>"},
		{`<"a b"@a.example>`, Path{"a b", "a.example"}, ""},
		{`<"a@b"@a.example>`, Path{"a@b", "a.example"}, ""},
		{`<"a@b">`, Path{"a@b", ""}, ""},
		{`<"a\"b\\c"@a.example>`, Path{`a"b\c`, "a.example"}, ""},
		{`<"\a\ b\>"@a.example>`, Path{"a b>", "a.example"}, `<"a b>"@a.example>`},
		{`<">@evil.example"@a.example>`, Path{">@evil.example", "a.example"}, ""},
		{"<a..b@a.example>", Path{"a..b", "a.example"}, `<"a..b"@a.example>`},
		{"<.a@a.example>", Path{".a", "a.example"}, `<".a"@a.example>`},
		{"<a.@a.example>", Path{"a.", "a.example"}, `<"a."@a.example>`},
		{`<"a.b"@a.example>`, Path{"a.b", "a.example"}, "<a.b@a.example>"},
		{"<@one.example:alice@a.example>", Path{"alice", "a.example"}, "<alice@a.example>"},
		{"<@one.example,@[192.0.2.1],@two:alice@a.example>", Path{"alice", "a.example"}, "<alice@a.example>"},
		{"<älice@exämple.net>", Path{"älice", "exämple.net"}, ""},
		{`<"ä b"@a.example>`, Path{"ä b", "a.example"}, ""},
		{"<" + x(245) + "@a.example>", Path{}, "-"}, // 257 octets
		{"<" + x(244) + "@a.example>", Path{x(244), "a.example"}, ""},
		{"<a@" + x(252) + ">", Path{"a", x(252)}, ""},
		{"<a@" + x(256) + ">", Path{}, "-"},
	} {
		args := NewArgs(test.said + " REST")
		got, ok := args.Path()
		if test.as == "-" {
			if ok || args.Rest() != test.said+" REST" {
				t.Errorf("%s is taken for %+v", shorten(test.said), got)
			}
			continue
		}
		if !ok || got != test.want || args.Rest() != " REST" {
			t.Errorf("%s is read as %+v, %v", test.said, got, ok)
		}
		want := test.as
		if want == "" {
			want = test.said
		}
		if got.String() != want {
			t.Errorf("%s is written again as %s, want %s", test.said, got, want)
		}
		if got.ASCII() == strings.Contains(test.said, "ä") {
			t.Errorf("%s is ASCII: %v", test.said, got.ASCII())
		}
	}
}

func TestPathMalformed(t *testing.T) {
	for _, said := range []string{
		"", "<", ">", "alice@a.example", "< >", "<alice@a.example", " <alice@a.example>", "<alice@>", "<@a.example>", "<@>",
		"<alice@a..example>", "<alice@.example>", "<alice@example.>", "<alice@a b>", "<al ice@a.example>", "<alice@a.example >", "< alice@a.example>",
		`<"alice@a.example>`, `<"alice"b@a.example>`, `<a"lice"@a.example>`, `<""@a.example>`, `<"">`, `<"a\`, `<"a\>`,
		"<a@b@a.example>", "<a,b@a.example>", "<a:b@a.example>", "<a(b)@a.example>", "<a<b@a.example>", "<a\\b@a.example>", "<[a]@a.example>",
		"<a\tb@a.example>", "<\"a\tb\"@a.example>", "<a\x00b@a.example>", "<\"a\x7f\"@a.example>", "<\"a\\\x01\"@a.example>",
		"<a\r\nRCPT@a.example>", "<\"a\r\nb\"@a.example>", "<a@a.example\r\n>", "<a@[1\r\n]>",
		"<\xff@a.example>", "<\"\xff\"@a.example>", "<a@\xff.example>", "<a\u0085b@a.example>", "<a@b\u0085.example>", "<\"\\ä\"@a.example>",
		"<a@[]>", "<a@[1>", "<a@[1]x>", "<a@[a b]>", "<a@[[1]]>", "<a@[1]]>", "<a@[\\1]>", "<a@b[1]>",
		"<@one:>", "<@one,:a@b>", "<@one,two:a@b>", "<@one,a@b>", "<@one a@b>", "<@:a@b>", "<@one:@two:a@b>", "<:a@b>",
	} {
		args := NewArgs(said)
		if got, ok := args.Path(); ok && args.End() {
			t.Errorf("%q is taken for %+v", said, got)
		} else if !ok && args.Rest() != said {
			t.Errorf("%q is refused, and consumed", said)
		}
	}
}

// What is read from an address is read from what is written of it, and nothing comes in between.
func FuzzPath(f *testing.F) {
	for _, said := range []string{"<>", "<alice+x@a.example>", `<"a\"b@ c"@a.example>`, "<@x,@y:a..b@[::1]>", "<ä@ä.example>", `<"<>"@x>`, "<a>"} {
		f.Add(said)
	}
	f.Fuzz(func(t *testing.T, said string) {
		for _, what := range []string{said, "<" + said + ">", `<"` + said + `"@a.example>`} {
			path, ok := NewArgs(what).Path()
			if !ok {
				continue
			}
			written := path.String()
			args := NewArgs(written + "> REST")
			again, ok := args.Path()
			if !ok || again != path || args.Rest() != "> REST" {
				t.Errorf("%q is %+v, written %q, read again as %+v, %v", what, path, written, again, ok)
			}
			if strings.ContainsAny(written, "\x00\r\n\t\x7f") || len(written) > maxPath || (path.Local == "") != (written == "<>") {
				t.Errorf("%+v is written as %q", path, written)
			}
			if strings.ContainsFunc(written, func(r rune) bool { return r > 0x7f }) == path.ASCII() {
				t.Errorf("%q: ASCII is %v", written, path.ASCII())
			}
		}
	})
}
