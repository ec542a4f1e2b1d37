package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// refusesIn wants a user's login to be refused in such words.
func (d *dynasty) refusesIn(user, want string) {
	d.t.Helper()
	d.wantsStatus(d.t, "mail.a.example", user, want)
}

// getsIn waits until a user can log in.
func (d *dynasty) getsIn(user string) (session *dialog) {
	d.t.Helper()
	eventually(d.t, "there is room for "+user, func() bool {
		var status string
		if session, status = d.tries("mail.a.example", user); strings.HasPrefix(status, "OK") {
			return true
		}
		session.conn.Close()
		return false
	})
	return session
}

// leaves ends a session.
func (d *dialog) leaves() {
	d.t.Helper()
	d.ask("LOGOUT")
	d.conn.Close()
}

const (
	userIsFull  = "NO [LIMIT]"
	storeIsFull = "NO [UNAVAILABLE]"
)

// TestUpgradeLimits: what sessions of former processes take of a limit is not there for others, until they end.
func TestUpgradeLimits(t *testing.T) {
	t.Parallel()
	d := newDynasty(t)
	d.write("max_sessions = 3\n[limits]\nsessions_per_user = 2\n")
	d.start()
	const alice, bob, carl = "alice@a.example", "bob@a.example", "carl@a.example"
	first := d.login("mail.a.example", alice)
	d.upgrade()
	second := d.login("mail.a.example", alice)
	d.upgrade()
	d.refusesIn(alice, userIsFull)
	third := d.login("mail.a.example", bob)
	d.refusesIn(carl, storeIsFull)
	obeys(t, d.admin, "status", "sessions_per_user: 1 of 2", "3 of 3")

	first.leaves()
	d.getsIn(carl).leaves()
	fourth := d.getsIn(alice)
	d.refusesIn(carl, storeIsFull)
	third.leaves()
	d.refusesIn(alice, userIsFull)
	for _, session := range []*dialog{second, fourth} {
		session.ask("NOOP")
	}
}

// TestUpgradeKilled: a process that is killed takes what its sessions have held with it, and leaves its counters as they were last heard.
func TestUpgradeKilled(t *testing.T) {
	t.Parallel()
	needServers(t)
	d := newDynasty(t)
	d.write("max_sessions = 1\n[limits]\nsessions_per_user = 1\n")
	d.start()
	former := d.upgrade()
	d.login("mail.a.example", "alice@a.example")
	d.upgrade()
	d.refusesIn("alice@a.example", storeIsFull)
	logins := func() float64 { return d.flow().sum("jackdaw_logins_total", `outcome="ok"`) }
	if n := logins(); n != 1 {
		t.Errorf("%v logins", n)
	}
	must(t, syscall.Kill(former, syscall.SIGKILL))
	d.getsIn("alice@a.example").ask("NOOP")
	if n := logins(); n != 2 {
		t.Errorf("%v logins in all, want 2", n)
	}
}

// TestUpgradeLastCounters: what a former process counts, up to its last moment, is counted; its sessions are not there any more.
func TestUpgradeLastCounters(t *testing.T) {
	t.Parallel()
	needServers(t)
	d := startDynasty(t)
	first := d.upgrade()
	early := d.imap("mail.a.example")
	before := d.flow()
	last := d.upgrade()
	early.ask("LOGIN alice@a.example " + password)
	early.ask("NOOP")
	early.leaves()
	d.ends(first)
	eventually(t, "there is one process", func() bool { return d.flow()["jackdaw_processes"] == 1 })
	now := d.flow()
	for key, n := range before {
		if now[key] < n && key != "jackdaw_processes" {
			t.Errorf("%s went from %v to %v", key, n, now[key])
		}
	}
	if n := now.sum("jackdaw_logins_total", `outcome="ok"`); n != 1 {
		t.Errorf("process %d counts %v logins", last, n)
	}
	if n := now.sum("jackdaw_relayed_bytes_total"); n == 0 {
		t.Error("nothing was relayed")
	}
}

// standing is what the status says of the store.
func (d *dynasty) standing() (drained bool, emptied time.Time) {
	d.t.Helper()
	var report struct {
		Backends []struct{ Drained bool }
		Emptied  []struct{ Until time.Time }
	}
	response, err := d.byHTTP().Get("http://jackdaw/status")
	must(d.t, err)
	defer response.Body.Close()
	must(d.t, json.NewDecoder(response.Body).Decode(&report))
	for _, one := range report.Emptied {
		emptied = one.Until
	}
	return report.Backends[0].Drained, emptied
}

// TestUpgradeDrain: a store whose sessions are being ended goes on being emptied, over the same time, whichever process has the
// sessions; and whoever takes it back takes it back.
func TestUpgradeDrain(t *testing.T) {
	t.Parallel()
	d := startDynasty(t)
	session := d.login("mail.a.example", "alice@a.example")
	obeys(t, d.admin, "drain store --over 1h", "store is drained; sessions there: 1")
	_, before := d.standing()
	d.upgrade()
	if drained, after := d.standing(); !drained || after.IsZero() || !after.Equal(before) {
		t.Errorf("drained: %v, empty at %v, want %v", drained, after, before)
	}
	d.login("mail.a.example", "alice@a.example").leaves() // who is there may have more
	d.refusesIn("bob@a.example", storeIsFull)
	obeys(t, d.admin, "undrain store", "drained no longer")
	d.upgrade()
	if drained, until := d.standing(); drained || !until.IsZero() {
		t.Errorf("drained: %v, empty at %v", drained, until)
	}
	session.ask("NOOP")

	obeys(t, d.admin, "drain store --over 3s")
	d.upgrade()
	if last := session.ended(); !strings.HasPrefix(last, "* BYE") {
		t.Errorf("alice hears %q", last)
	}
	d.logged(t, "a drained backend has no sessions any more")
	if _, until := d.standing(); !until.IsZero() {
		t.Errorf("nobody is there, and it is being emptied until %v", until)
	}
}

// TestUpgradeOrders: whatever somebody orders while one process follows another is done and holds, or is said to be the other's, and
// always answered.
func TestUpgradeOrders(t *testing.T) {
	t.Parallel()
	d := startDynasty(t)
	client := d.byHTTP()
	orders := func(order string) bool {
		response, err := client.Post("http://jackdaw/"+order, "", nil)
		if err != nil {
			t.Errorf("%s: %v", order, err)
			return false
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s: %s: %s", order, response.Status, text)
		}
		return response.StatusCode == http.StatusOK
	}
	insists := func(order string) {
		for end := time.Now().Add(patience); !orders(order); {
			if time.Now().After(end) {
				t.Errorf("%s is refused all the time", order)
				return
			}
		}
	}
	for round := range 4 {
		stop := make(chan struct{})
		var toggling sync.WaitGroup
		var drained, blocked bool
		toggle := func(state *bool, order, reverse string) {
			toggling.Go(func() {
				for {
					insists(order)
					*state = !*state
					order, reverse = reverse, order
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		toggle(&drained, "drain?backend=store", "undrain?backend=store")
		toggle(&blocked, "block?user=dora@a.example", "unblock?user=dora@a.example")
		d.upgrade()
		close(stop)
		toggling.Wait()
		if got, _ := d.standing(); got != drained {
			t.Errorf("round %d: drained is %v, and %v was the last to be acknowledged", round, got, drained)
		}
		if said, _ := asksDaemon(t, d.admin, "status"); strings.Contains(said, "dora@a.example until") != blocked {
			t.Errorf("round %d: blocked should be %v:\n%s", round, blocked, said)
		}
		insists("undrain?backend=store")
		if blocked {
			insists("unblock?user=dora@a.example")
		}
	}
}

// TestUpgradeRests: a former process leaves stores alone when it has none but relayed sessions; one that delivers mail may still need
// them.
func TestUpgradeRests(t *testing.T) {
	t.Parallel()
	for _, busy := range []bool{false, true} {
		d := newDynasty(t)
		d.listen = fmt.Sprintf("lmtp = %q", d.at(portLMTP))
		d.write(fmt.Sprintf("lmtp = %q\n[log]\nlevel = \"debug\"\n", d.store))
		d.start()
		session := d.login("mail.a.example", "alice@a.example")
		courier := dialFrom(t, "", "tcp", d.at(portLMTP))
		courier.expect("220 ")
		if !busy {
			courier.send("QUIT")
			courier.expect("221 ")
			courier.conn.Close()
		}
		d.upgrade()
		if busy {
			time.Sleep(2 * time.Second)
			if d.count("no session needs a store") > 0 {
				t.Error("somebody may yet deliver")
			}
			courier.send("QUIT")
			courier.expect("221 ")
			courier.conn.Close()
		}
		d.logged(t, "no session needs a store")
		session.ask("NOOP")
	}
}
