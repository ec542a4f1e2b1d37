package integration

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDescriptors: when all descriptors are used up, who is there goes on, and who comes waits; when there are some again he is served.
func TestDescriptors(t *testing.T) {
	t.Parallel()
	store := startDovecot(t, "store1", passwords, "alice@a.example")
	jd := startJackdaw(t, store.backend())
	session := jd.login("mail.a.example", "alice@a.example")
	pid := jd.cmd.Process.Pid
	var was unix.Rlimit
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &was))
	open, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(open)) + 2, Max: was.Max}, nil))
	waiting := make([]*dialog, 8)
	for i := range waiting {
		waiting[i] = dial(t, jd.at(portIMAPS))
	}
	jd.logged(t, "accepting failed", "too many open files")
	session.ask("NOOP")
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &was, nil))
	for i, d := range waiting {
		d.handshake(jd.tls("mail.a.example"))
		d.expect("* OK ")
		d.send(fmt.Sprintf("a%d LOGIN alice@a.example %s", i, password))
		d.until(fmt.Sprintf("a%d OK", i))
	}
	session.ask("NOOP")
}
