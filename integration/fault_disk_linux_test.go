package integration

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// learned are the services whose abilities jackdaw has kept for its next run.
func (jd *jackdaw) learned(t testing.TB) []string {
	t.Helper()
	var kept map[string]any
	data, err := os.ReadFile(filepath.Join(jd.dir, "state", "capabilities.json"))
	if os.IsNotExist(err) {
		return nil
	}
	must(t, err)
	if err := json.Unmarshal(data, &kept); err != nil {
		t.Fatalf("what was kept is %q: %v", data, err)
	}
	return slices.Sorted(maps.Keys(kept))
}

// TestFullDisk: while no file can grow, the log and what is to outlive a restart, clients are served, and what was kept stays as it
// was. When there is room again, both go on, and the log has what was to be said meanwhile.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	one, two := quickBackend("store1", quickStore(t)), quickBackend("store2", quickStore(t))
	toOne := "[[route]]\nto = \"store1\"\n"
	jd := startJackdaw(t, one, toOne)
	there := jd.login("mail.a.example", "alice@a.example")
	eventually(t, "something is kept", func() bool { return slices.Equal(jd.learned(t), []string{"store1 imap"}) })
	regrant := jd.grant(t, unix.RLIMIT_FSIZE, 0)
	size := len(jd.Log())
	jd.reload(one, two, toOne)
	for range 3 {
		jd.served()
	}
	there.ask("NOOP")
	dir, err := os.Stat(filepath.Join(jd.dir, "state"))
	must(t, err)
	eventually(t, "it was tried to keep something", func() bool {
		now, err := os.Stat(filepath.Join(jd.dir, "state"))
		must(t, err)
		return now.ModTime().After(dir.ModTime())
	})
	if kept := jd.learned(t); !slices.Equal(kept, []string{"store1 imap"}) {
		t.Errorf("on the full disk there is %q", kept)
	}
	if len(jd.Log()) != size {
		t.Error("the log has grown on a full disk")
	}
	regrant()
	jd.served()
	jd.loggedTimes(t, 5, `"msg":"login"`) // alice's, who is there, those of the three, and the latest
	eventually(t, "all is kept", func() bool { return slices.Equal(jd.learned(t), []string{"store1 imap", "store2 imap"}) })
	there.ask("NOOP")
}

// TestStateNotWritable: a directory in which nothing can be kept is a warning, and nobody is served less for it.
func TestStateNotWritable(t *testing.T) {
	t.Parallel()
	jd := frontend{servant: true}.start(t, quickBackend("store", quickStore(t)))
	state := filepath.Join(jd.dir, "state")
	must(t, os.Chown(state, os.Getuid(), os.Getgid()))
	must(t, os.Chmod(state, 0o555))
	jd.served()
	jd.logged(t, "keeping what is to outlive a restart", "capabilities.json", "permission denied")
	jd.served()
}
