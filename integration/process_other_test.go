//go:build !linux

package integration

import (
	"os/exec"
	"testing"
)

// Where install-servers.sh cannot work, there is nothing to start.

func detach(*exec.Cmd) {}

func asServant(_ testing.TB, cmd *exec.Cmd) *exec.Cmd { return cmd }
