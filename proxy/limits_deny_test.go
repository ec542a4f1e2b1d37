package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
)

// Who is denied hears so and nothing else; others, and those on whose behalf nobody has spoken, are served.
func TestDeny(t *testing.T) {
	h := newHost(t)
	h.setup.Config.Limits.Deny = network("127.0.0.2/32")
	h.setup.Config.Limits.Exempt = loopback // which does not help
	address := "127.0.0.1:" + freePort(t)
	h.listens(imap("tcp", address))
	if _, line := joins(t, "127.0.0.2", address); line != "* BYE Connections from your network are refused\r\n" {
		t.Errorf("told %q", line)
	}
	if _, line := joins(t, "127.0.0.3", address); !strings.HasPrefix(line, "* OK") {
		t.Errorf("somebody else is told %q", line)
	}
	if l := h.limit(limitDeny); l != (LimitState{limitDeny, 0, 1, 1}) {
		t.Errorf("the limit is %+v", l)
	}
}

// Behind a proxy it is the client who is denied, and not the proxy.
func TestDenyBehindProxy(t *testing.T) {
	h := newHost(t)
	h.setup.Config.Limits.Deny = configs.Networks{Prefixes: []netip.Prefix{
		netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("127.0.0.0/8")}}
	address := "127.0.0.1:" + freePort(t)
	listener := imap("tcp", address)
	listener.ProxyFrom = loopback
	h.listens(listener)
	for header, want := range map[string]string{
		"PROXY TCP4 192.0.2.7 198.51.100.1 4000 143\r\n":    "* BYE Connections from your network are refused\r\n",
		"PROXY TCP4 198.51.100.7 198.51.100.1 4000 143\r\n": "* OK",
		"PROXY UNKNOWN\r\n": "* OK",
	} {
		conn := dialed(t, address)
		say(t, conn, header)
		_ = conn.SetDeadline(time.Now().Add(patience))
		line := make([]byte, 200)
		if n, err := conn.Read(line); !strings.HasPrefix(string(line[:n]), want) {
			t.Errorf("%q is told %q, %v", header, line[:n], err)
		}
	}
}

// denials is a list with a file, which the test looks at whenever it asks.
type denials struct {
	denyList
	t    *testing.T
	path string
}

func newDenials(t *testing.T, text string) *denials {
	d := &denials{denyList: denyList{log: zap.NewNop()}, t: t, path: filepath.Join(t.TempDir(), "denied")}
	d.write(text)
	return d
}

func (d *denials) applied(config configs.Limits) error {
	apply, err := d.prepare(config)
	if err == nil {
		apply()
	}
	return err
}

func (d *denials) write(text string) {
	d.t.Helper()
	if err := os.WriteFile(d.path, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *denials) has(client string) bool {
	d.looked.Store(0)
	return d.contains(netip.MustParseAddr(client))
}

// A file of networks is followed: what is added counts, what is gone does not, and what cannot be read changes nothing.
func TestDenyFile(t *testing.T) {
	d := newDenials(t, "# spammers\n\n 192.0.2.0/24 \r\n2001:db8:bad::/48\n")
	if err := d.applied(configs.Limits{Deny: network("198.51.100.1/32"), DenyFile: d.path}); err != nil {
		t.Fatal(err)
	}
	for client, want := range map[string]bool{
		"192.0.2.255": true, "::ffff:192.0.2.1": true, "192.0.3.0": false, "2001:db8:bad:1::1": true, "2001:db8:bee::1": false,
		"198.51.100.1": true, "198.51.100.2": false,
	} {
		if d.has(client) != want {
			t.Errorf("%s is denied: %v", client, !want)
		}
	}
	if d.count() != 3 {
		t.Error(d.count(), "networks")
	}
	d.write("203.0.113.9\n")
	if !d.has("203.0.113.9") || d.has("192.0.2.1") || !d.has("198.51.100.1") {
		t.Error("the change is not seen")
	}
	d.write("203.0.113.10\nnonsense\n")
	if !d.has("203.0.113.9") || d.has("203.0.113.10") {
		t.Error("half a file was taken")
	}
	if err := os.Remove(d.path); err != nil {
		t.Fatal(err)
	}
	if !d.has("203.0.113.9") {
		t.Error("without a file everybody is let in")
	}
	d.write("203.0.113.11\n")
	if !d.has("203.0.113.11") {
		t.Error("the file that is back is not seen")
	}
}

// A file that cannot be read is an error at the start and at a reload, which names file and line, and changes nothing.
func TestDenyFileError(t *testing.T) {
	d := newDenials(t, "192.0.2.1\n")
	if err := d.applied(configs.Limits{DenyFile: d.path}); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := d.applied(configs.Limits{DenyFile: other}); !errors.Is(err, os.ErrNotExist) ||
		!strings.HasPrefix(err.Error(), "reading the networks to deny: ") {
		t.Error("no file:", err)
	}
	if err := os.WriteFile(other, []byte("192.0.2.2\n192.0.2.3/24\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.applied(configs.Limits{DenyFile: other}); err == nil || !strings.HasPrefix(err.Error(), other+":2: ") {
		t.Error("nonsense:", err)
	}
	if !d.has("192.0.2.1") || d.has("192.0.2.2") {
		t.Error("something has changed")
	}
}

// Many networks are no more work than few.
func BenchmarkDeny(b *testing.B) {
	set := newNetworkSet(configs.Networks{})
	for i := range 100_000 {
		set.add(network(fmt.Sprintf("10.%d.%d.%d/32", i>>16, i>>8&255, i&255)))
	}
	client := netip.MustParseAddr("192.0.2.1")
	for b.Loop() {
		set.contains(client)
	}
}
