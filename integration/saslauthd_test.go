package integration

import (
	"net"
	"os/exec"
	"path/filepath"
	"testing"
)

// startSaslauthd runs a saslauthd until the test ends, which tries names and passwords at a store's IMAP. It listens in a
// directory: for a Postfix with cyrusSASL in that one's, or in a new one.
func startSaslauthd(t testing.TB, checks *store, dir string) *process {
	t.Helper()
	needServers(t)
	host, port, err := net.SplitHostPort(checks.imap())
	if err != nil {
		t.Fatal(err)
	}
	// -d keeps it with us, -r has a user keep the domain.
	p := startProcess(t, filepath.Join(dir, "saslauthd.log"), asServant(t, exec.Command("saslauthd",
		"-d", "-r", "-n", "2", "-a", "rimap", "-O", host+"/"+port, "-m", dir)))
	p.answers(t, "unix", filepath.Join(dir, "mux"))
	return p
}
