package proxy

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// blockedFor is a block from now on.
func blockedFor(d time.Duration, network, user string) Block {
	b := Block{User: user, Since: time.Now(), Until: time.Now().Add(d)}
	if network != "" {
		b.Network = netip.MustParsePrefix(network)
	}
	return b
}

// Networks and users are kept out until their time has come, of whatever length the network is.
func TestBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &blocks{log: zap.NewNop()}
		hour := time.Hour
		b.add(blockedFor(hour, "192.0.2.0/24", ""), blockedFor(2*hour, "2001:db8::/64", ""), blockedFor(hour, "198.51.100.7/32", ""),
			blockedFor(hour, "", "anna@a.example"))
		want := func(when string, blocked bool, clients ...string) {
			t.Helper()
			for _, client := range clients {
				if b.network(netip.MustParseAddr(client)) != blocked {
					t.Errorf("%s, %s is blocked: %v", when, client, !blocked)
				}
			}
		}
		want("now", true, "192.0.2.1", "192.0.2.255", "2001:db8::1:2", "198.51.100.7")
		want("now", false, "192.0.3.1", "2001:db8:0:1::1", "198.51.100.8")
		if !b.user("anna@a.example") || b.user("anna@b.example") || b.user("") || b.network(netip.Addr{}) {
			t.Error("not just anna is blocked")
		}
		if !b.remove(blockedFor(0, "198.51.100.7/32", "")) || b.remove(blockedFor(0, "198.51.100.0/24", "")) {
			t.Error("what was blocked is not known")
		}
		want("unblocked", false, "198.51.100.7")
		time.Sleep(hour)
		want("after an hour", false, "192.0.2.1")
		want("after an hour", true, "2001:db8::1")
		if b.user("anna@a.example") || len(b.all()) != 1 {
			t.Errorf("there are %v yet", b.all())
		}
		b.add(blockedFor(-hour, "2001:db8::/64", "")) // what is over is forgotten at once
		if len(b.networks) != 0 {
			t.Errorf("%v is known still", b.networks)
		}
	})
}

// Blocks outlive a restart, and a file that makes no sense costs no more than a warning.
func TestBlocksAreKept(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	dir := t.TempDir()
	first := &blocks{log: zap.New(core)}
	first.keepIn(dir)
	first.add(blockedFor(time.Hour, "192.0.2.0/24", ""), blockedFor(time.Hour, "", "anna@a.example"))
	first.remove(blockedFor(0, "", "anna@a.example"))
	second := &blocks{log: zap.New(core)}
	second.keepIn(dir)
	if !second.network(netip.MustParseAddr("192.0.2.1")) || second.user("anna@a.example") || logs.Len() != 0 {
		t.Errorf("remembered are %v, logged is %v", second.all(), logs.All())
	}
	elsewhere := t.TempDir()
	second.keepIn(elsewhere) // as after a reload
	moved := &blocks{log: zap.New(core)}
	if moved.keepIn(elsewhere); !moved.network(netip.MustParseAddr("192.0.2.1")) {
		t.Errorf("in another directory are %v", moved.all())
	}
	if err := os.WriteFile(filepath.Join(dir, blockedFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	third := &blocks{log: zap.New(core)}
	third.keepIn(dir)
	if len(third.all()) != 0 || logs.Len() != 1 {
		t.Errorf("remembered are %v, logged is %v", third.all(), logs.All())
	}
}

// A block that could not be written is, when it can be.
func TestBlocksKeptLate(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	dir := filepath.Join(t.TempDir(), "late")
	first, second := &blocks{log: zap.New(core)}, &blocks{log: zap.New(core)}
	first.keepIn(dir)
	first.add(blockedFor(time.Hour, "192.0.2.0/24", ""))
	first.add(blockedFor(time.Hour, "", "anna@a.example"))
	if logs.Len() != 1 {
		t.Errorf("logged is %v", logs.All())
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	first.close()
	if second.keepIn(dir); !second.network(netip.MustParseAddr("192.0.2.1")) || !second.user("anna@a.example") {
		t.Errorf("remembered are %v", second.all())
	}
}

// A block that was made while the clock was years ahead, and is read when it is right, lasts for its time and not for years. One
// that has lasted for a part of it lasts for the rest.
func TestBlocksClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &blocks{log: zap.NewNop()}
		now := time.Now().Round(0)
		ahead := now.AddDate(3, 0, 0)
		b.add(Block{User: "anna", Since: ahead, Until: ahead.Add(time.Hour)}, Block{User: "bert", Since: now.Add(-time.Hour), Until: now.Add(time.Minute)})
		if listed := b.all()[0]; !listed.Since.Equal(now) || !listed.Until.Equal(now.Add(time.Hour)) {
			t.Errorf("listed is %v", listed)
		}
		time.Sleep(time.Minute)
		if !b.user("anna") || b.user("bert") {
			t.Error("after a minute not just anna is blocked")
		}
		time.Sleep(59 * time.Minute)
		if b.user("anna") {
			t.Error("after an hour anna is blocked yet")
		}
	})
}

// Who takes over from another process has its blocks, and no others: somebody may have been let in again since the file was read.
func TestBlocksInherited(t *testing.T) {
	dir := t.TempDir()
	former, next := &blocks{log: zap.NewNop()}, &blocks{log: zap.NewNop()}
	former.keepIn(dir)
	former.add(blockedFor(time.Hour, "", "anna@a.example"), blockedFor(time.Hour, "", "bert@a.example"))
	before, err := os.Stat(filepath.Join(dir, blockedFile))
	if err != nil {
		t.Fatal(err)
	}
	next.keepIn(dir)
	if now, err := os.Stat(filepath.Join(dir, blockedFile)); err != nil || !os.SameFile(before, now) {
		t.Errorf("the file is another one before anybody has handed it over, or %v", err)
	}
	former.remove(blockedFor(0, "", "anna@a.example"))
	former.add(blockedFor(time.Hour, "192.0.2.0/24", ""))
	next.inherit(former.list())
	former.learn(nil) // it is told so, and that is kept by who tells it
	if all := former.list(); len(all) != 0 {
		t.Errorf("the former process has %v", all)
	}
	restarted := &blocks{log: zap.NewNop()}
	restarted.keepIn(dir)
	for _, b := range []*blocks{next, restarted} {
		if b.user("anna@a.example") || !b.user("bert@a.example") || !b.network(netip.MustParseAddr("192.0.2.1")) {
			t.Errorf("there are %v", b.list())
		}
	}
}
