package integration

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
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
