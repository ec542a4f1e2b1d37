package backends

import (
	"errors"
	"strings"
	"testing"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

func TestMailbox(t *testing.T) {
	names := NewNames(configs.Users{Separators: "@%", Lowercase: true, Unqualified: []string{"cyrus"}})
	for _, test := range []struct {
		local, domain string
		want          string // user, a blank, detail; "" if it is refused
	}{
		{"alice", "a.example", "alice@a.example "},
		{"Alice+Folder", "A.Example", "alice@a.example +Folder"},
		{"alice+a+B", "a.example", "alice@a.example +a+B"},
		{"alice+", "a.example", "alice@a.example +"},
		{"alice+Sent Items", "a.example", "alice@a.example +Sent Items"},
		{"alice", "ä.example", "alice@xn--4ca.example "},
		{"A\u0308", "a.example", "ä@a.example "},
		{"alice", "", "alice@b.example "},
		{"alice+x", "", "alice@b.example +x"},
		{"alice%c.example+x", "", "alice@c.example +x"}, // as at a login
		{"cyrus", "", "cyrus "},
		{"cyrus", "a.example", "cyrus@a.example "},
		{"+x", "a.example", ""},
		{"+x", "", ""},
		{"", "", ""},
		{"alice@c.example", "", ""},
		{"alice@c.example", "a.example", ""},
		{"alice%c.example", "a.example", ""},
		{"alice+x@c.example", "a.example", ""},
		{"alice+x%c.example", "a.example", ""},
		{"alice+x@c.example", "", ""},
		{"alice*master", "a.example", ""},
		{"alice+x*", "a.example", ""},
		{"alice ", "a.example", ""},
		{" alice", "", ""},
		{"alice +x", "a.example", ""},
		{"alice+x ", "a.example", ""},
		{"al\u200bice", "a.example", ""},
		{"alice+\u200b", "a.example", ""},
		{"alice", "[192.0.2.1]", ""},
		{"alice", "a.example.", ""},
		{"alice", "a_b", ""},
		{strings.Repeat("x", 300) + "+" + strings.Repeat("x", 300), "a.example", ""},
	} {
		mailbox, err := names.Mailbox(wire.Path{Local: test.local, Domain: test.domain}, "b.example")
		got := mailbox.User.String() + " " + mailbox.Detail
		if (err == nil) != (test.want != "") || err == nil && got != test.want || err != nil && !errors.Is(err, ErrName) {
			t.Errorf("%q at %q is %q and %v, want %q", test.local, test.domain, got, err, test.want)
		}
	}
}

// Where only "%" parts the names of logins, addresses still have their "@".
func TestMailboxSeparators(t *testing.T) {
	names := NewNames(configs.Users{Separators: "%"})
	mailbox, err := names.Mailbox(wire.Path{Local: "Alice+x", Domain: "a.example"}, "")
	if err != nil || mailbox != (Mailbox{User{"Alice", "a.example"}, "+x"}) {
		t.Errorf("%+v, %v", mailbox, err)
	}
}

func TestMailboxAddress(t *testing.T) {
	alice := Mailbox{User{"al ice", "a.example"}, "+a>b"}
	for form, want := range map[string]string{
		"{user}":                   `<"al ice+a>b"@a.example>`,
		"{local}":                  `<"al ice+a>b">`,
		"{local}%{domain}":         `<"al ice+a>b%a.example">`,
		"{local}@store.example":    `<"al ice+a>b"@store.example>`,
		"x-{local}@mail.{domain}":  `<"x-al ice+a>b"@mail.a.example>`,
		"{local}@x@{domain}":       `<"al ice+a>b@x"@a.example>`,
		"{domain}@{local}":         "",
		"{local}@{domain} SIZE=1>": "",
		"{local}\r\n@{domain}":     "",
		"@{domain}":                "",
	} {
		got, err := alice.Address(form)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q gives %s and %v, want %s", form, got, err, want)
		}
	}
	if got, err := (Mailbox{User{"alice", ""}, "+x"}).Address("{local}%{domain}"); err != nil || got.String() != "<alice+x>" {
		t.Errorf("a bare name gives %s and %v", got, err)
	}
}

// What a store is told is read there as what routed the mail, and nothing else.
func FuzzMailbox(f *testing.F) {
	f.Add("alice+x", "a.example", false)
	f.Add("al ice+A\"b", "Ä.example", true)
	f.Add("a%b", "", true)
	f.Fuzz(func(t *testing.T, local, domain string, lowercase bool) {
		names := NewNames(configs.Users{Separators: "@%", Lowercase: lowercase})
		mailbox, err := names.Mailbox(wire.Path{Local: local, Domain: domain}, "b.example")
		if err != nil {
			return
		}
		address, err := mailbox.Address("{user}")
		if err != nil {
			return // it is too long by now
		}
		args := wire.NewArgs(address.String())
		read, ok := args.Path()
		if !ok || !args.End() {
			t.Fatalf("%q at %q is written as %q", local, domain, address)
		}
		again, err := names.Mailbox(read, "")
		if err != nil || again != mailbox {
			t.Errorf("%q at %q is %+v, written as %q, and read as %+v, %v", local, domain, mailbox, address, again, err)
		}
	})
}
