package configs

import (
	"net/netip"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for _, test := range []struct {
		in, want string // the address, or the error
	}{
		{":993", ":993"},
		{":0", ":0"},
		{"127.0.0.1:143", "127.0.0.1:143"},
		{"[::1]:143", "[::1]:143"},
		{"[::ffff:192.0.2.1]:143", "192.0.2.1:143"},
		{"[fe80::1%eth0]:143", "[fe80::1%eth0]:143"},
		{"Bücher.example:143", "xn--bcher-kva.example:143"},
		{"{name}:143", "{name}:143"},
		{"imap.{name}:143", "imap.{name}:143"},
		{"unix:/run//imap", "unix:/run/imap"},
		{"unix:/run/{name}/imap", "unix:/run/{name}/imap"},

		{"unix:run/imap", `"unix:run/imap": the path of a socket must begin with /`},
		{"/run/imap", `"/run/imap" has no port; for a socket write "unix:/run/imap"`},
		{"143", `"143" has no host; for a port of this machine write ":143"`},
		{"store", `"store" has no port; write host and port, such as "127.0.0.1:143"`},
		{"", `"" has no port; write host and port, such as "127.0.0.1:143"`},
		{"::1:143", `"::1:143": write an IPv6 address in brackets, and a port: "[::1]:143"`},
		{"store:imap", `"store:imap": the port must be a number from 0 to 65535`},
		{"store:65536", `"store:65536": the port must be a number from 0 to 65535`},
		{"store:+1", `"store:+1": the port must be a number from 0 to 65535`},
		{"*:993", `"*:993": for all addresses of this machine leave out the host`},
		{"a_b:143", `"a_b:143": "a_b" is no DNS name`},
		{"{port}:143", `"{port}:143": "{port}" is no DNS name`},
		{"{host}:143", `"{host}:143": only {name} and {port} can stand in braces`},
		{"{name}.:143", `"{name}.:143": "{name}." is no DNS name`},
	} {
		got, err := parseAddress(test.in)
		if err != nil {
			got = err
		}
		if text := textOf(got); text != test.want {
			t.Errorf("%q: got %s, want %s", test.in, text, test.want)
		}
	}
}

// Beside no configuration there is no backend that {name} could stand for.
func TestParseAddressAlone(t *testing.T) {
	if got, err := ParseAddress("unix:/run//imap"); err != nil || got.String() != "unix:/run/imap" {
		t.Errorf("got %s, %v", got, err)
	}
	for _, in := range []string{"{name}:143", "store"} {
		if got, err := ParseAddress(in); err == nil {
			t.Errorf("%q: got %s, want an error", in, got)
		}
	}
}

func textOf(v any) string {
	switch v := v.(type) {
	case Address:
		return v.String()
	case error:
		return v.Error()
	}
	return "neither an address nor an error"
}

func TestLeadsTo(t *testing.T) {
	for _, test := range []struct {
		store, listener string
		want            bool
	}{
		{"127.0.0.1:143", "127.0.0.1:143", true},
		{"127.0.0.1:143", ":143", true},
		{"127.0.0.2:143", "0.0.0.0:143", true},
		{"[::1]:143", "[::]:143", true},
		{"localhost:143", "127.0.0.1:143", true},
		{"127.0.0.1:143", "localhost:143", true},
		{"store:143", "store:143", true},
		{"unix:/run/imap", "unix:/run/imap", true},

		{"127.0.0.1:143", "127.0.0.1:144", false},
		{"127.0.0.1:143", "127.0.0.2:143", false},
		{"10.0.0.1:143", ":143", false},
		{"{name}:143", ":143", false},
		{"127.0.0.1:143", "192.0.2.1:143", false},
		{"unix:/run/imap", "unix:/run/jackdaw", false},
		{"unix:/run/imap", ":143", false},
	} {
		if got := address(t, test.store).leadsTo(address(t, test.listener)); got != test.want {
			t.Errorf("from %s to %s: %t", test.store, test.listener, got)
		}
	}
}

func address(t *testing.T, s string) Address {
	t.Helper()
	a, err := parseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a.(Address)
}

func TestNetworks(t *testing.T) {
	for _, test := range []struct {
		network string
		in, out []string // peers; "" is one on a unix socket
	}{
		{"local", []string{"127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1", ""}, []string{"192.0.2.1", "::2", "::ffff:192.0.2.1"}},
		{"192.0.2.0/24", []string{"192.0.2.255", "::ffff:192.0.2.1"}, []string{"192.0.3.1", "127.0.0.1", ""}},
		{"192.0.2.1", []string{"192.0.2.1"}, []string{"192.0.2.2"}},
		{"fe80::/10", []string{"fe80::1%eth0"}, []string{"::1", ""}},
		{"::/0", []string{"2001:db8::1"}, []string{"192.0.2.1", "::ffff:192.0.2.1", ""}},
	} {
		parsed, err := parseNetwork(test.network)
		if err != nil {
			t.Errorf("%s: %v", test.network, err)
			continue
		}
		networks := parsed.(Networks)
		for _, peer := range test.in {
			if !networks.Contains(peerAddress(peer)) {
				t.Errorf("%q is not in %s", peer, test.network)
			}
		}
		for _, peer := range test.out {
			if networks.Contains(peerAddress(peer)) {
				t.Errorf("%q is in %s", peer, test.network)
			}
		}
	}
}

func peerAddress(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}
