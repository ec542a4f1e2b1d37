package integration

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// detach makes a command the head of a process group of its own, and has it end with us, even if we crash.
func detach(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
}

// asServant makes a command run as the servant.
func asServant(t testing.TB, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	if os.Getuid() == 0 {
		u := servant(t)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{
			Uid: uint32(number(t, u.Uid)),
			Gid: uint32(number(t, u.Gid)),
		}}
	}
	return cmd
}

// grant says how much the system grants jackdaw from now on, of what setrlimit(2) names, until regrant.
func (p *process) grant(t testing.TB, resource int, much uint64) (regrant func()) {
	t.Helper()
	var before unix.Rlimit
	must(t, unix.Prlimit(p.cmd.Process.Pid, resource, nil, &before))
	must(t, unix.Prlimit(p.cmd.Process.Pid, resource, &unix.Rlimit{Cur: much, Max: before.Max}, nil))
	return func() {
		t.Helper()
		must(t, unix.Prlimit(p.cmd.Process.Pid, resource, &before, nil))
	}
}
