package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"testing"
)

// tunnelVariable has this program, in place of testing, carry bytes between its standard files and the address in it.
const tunnelVariable = "JACKDAW_TEST_TUNNEL"

// tunnelCommand is for the shell.
func tunnelCommand(t testing.TB, address string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s='%s' '%s'", tunnelVariable, address, self)
}

func tunnel(address string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(conn, os.Stdin)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(os.Stdout, conn)
	return err
}
