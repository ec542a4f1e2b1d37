package integration

import (
	"strings"
	"testing"
)

const unavailable = "NO [UNAVAILABLE] "

// TestReload: on SIGHUP routes are replaced and no session is touched. A bad file changes nothing and is reported.
func TestReload(t *testing.T) {
	t.Parallel()
	store1 := startDovecot(t, "store1", passwords, "alice@a.example")
	store2 := startDovecot(t, "store2", passwords, "alice@a.example")
	stores := store1.backend() + store2.backend()
	jd := startJackdaw(t, stores, domainTo("a.example", store1))
	before := jd.login("mail.a.example", "alice")

	jd.reload(stores, domainTo("a.example", store2))
	jd.logged(t, "reloaded")

	if folders := jd.folders(t, "mail.a.example", "alice"); !strings.Contains(folders, store2.folder()) {
		t.Errorf("after the reload alice has %q", folders)
	}
	if folders := before.ask(`LIST "" *`); !strings.Contains(folders, store1.folder()) {
		t.Errorf("in the session from before alice has %q", folders)
	}

	jd.reload(stores, `[[route]]`, `domains = ["a.example"]`, `to = "store1"`)
	jd.logged(t, "reload failed", jd.file+":", `unknown key`, "domains")
	if folders := jd.folders(t, "mail.a.example", "alice"); !strings.Contains(folders, store2.folder()) {
		t.Errorf("after the bad file alice has %q", folders)
	}
	before.ask("NOOP")
}

// TestStoreDown: while a store is down its users hear of a temporary failure, the operator of the store and the reason, and
// the others of nothing.
func TestStoreDown(t *testing.T) {
	t.Parallel()
	store1 := startDovecot(t, "store1", passwords, "alice@a.example")
	store2 := startDovecot(t, "store2", passwords, "bob@b.example")
	jd := startJackdaw(t, twoStores(store1, store2))
	jd.login("mail.a.example", "alice").ask("LOGOUT")

	store1.fail(t)
	d := jd.imap("mail.a.example")
	if _, status := d.command("LOGIN alice " + password); !strings.HasPrefix(status, unavailable) {
		t.Errorf("alice is told %q", status)
	}
	jd.logged(t, "login failed", `"user":"alice@a.example"`, `"backend":"store1"`, "connection refused")
	jd.login("mail.b.example", "bob")

	store1.restart()
	eventually(t, "alice is back on store1", func() bool {
		_, status := jd.imap("mail.a.example").command("LOGIN alice " + password)
		return strings.HasPrefix(status, "OK")
	})
}

// TestOpenStore: a store that lets anybody in is kept out, whether it does so for any name or only for those it knows.
func TestOpenStore(t *testing.T) {
	t.Parallel()
	store1 := startDovecot(t, "store1", anything, "alice@a.example")
	store2 := startDovecot(t, "store2", anythingForUsers, "bob@b.example")
	jd := startJackdaw(t, twoStores(store1, store2))

	if _, status := jd.imap("mail.a.example").command("LOGIN alice anything"); !strings.HasPrefix(status, unavailable) {
		t.Errorf("alice is told %q", status)
	}
	jd.logged(t, `"backend":"store1"`, `"protocol":"imap"`, "kept out")

	// That a store knows its users can only be seen with one of them: the first gets in.
	jd.login("mail.b.example", "bob")
	jd.logged(t, `"backend":"store2"`, `"protocol":"imap"`, "kept out")
	if _, status := jd.imap("mail.b.example").command("LOGIN bob anything"); !strings.HasPrefix(status, unavailable) {
		t.Errorf("bob is told %q", status)
	}
}
