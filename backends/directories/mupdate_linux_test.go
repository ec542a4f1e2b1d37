package directories

import (
	"path/filepath"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/internal/smallroom"
)

// On a full disk the copy stays what it was, and the list is followed all the same. The log tells once. When there is room again the
// copy is brought up to date.
func TestMurderCopyOnFullDisk(t *testing.T) {
	dir := smallroom.Enter(t)
	if dir == "" {
		return
	}
	core, logs := observer.New(zap.ErrorLevel)
	const anna, bert = "S: U1 MAILBOX \"user.anna\" \"store1\" \"\"\n", "S: U1 MAILBOX \"user.bert\" \"store2\" \"\"\n"
	m := startMaster(t, greeting+anna+"S: U1 OK \"\"\n", greeting+anna+bert+"S: U1 OK \"\"\n")
	c := servers(m)
	c.Copy = filepath.Join(dir, "murder")
	d := openMurder(t, c, zap.New(core))
	copied := func(want int) {
		t.Helper()
		if list, err := loadMailboxes(c.Copy); err != nil || len(list.places) != want {
			t.Errorf("the copy has %v, %v; want %d mailboxes", list, err, want)
		}
	}
	eventually(t, d, "anna", "store1")
	m.say("close")
	m.awaitPlay(1)
	copied(1)
	free := smallroom.Fill(t, dir)
	for play := 2; play < 5; play++ {
		eventually(t, d, "bert", "store2")
		m.say("close")
		m.awaitPlay(play)
		copied(1)
	}
	if logs.Len() != 1 || logs.All()[0].Message != "copy of the mailboxes cannot be written" {
		t.Errorf("logged: %v", logs.All())
	}
	free()
	m.say("close")
	m.awaitPlay(5)
	copied(2)
}
