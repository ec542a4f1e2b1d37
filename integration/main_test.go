// Package integration drives the built jackdaw between real clients and real servers. install-servers.sh, in this directory,
// installs them; where it has not run, the tests skip. Every test starts servers of its own, from private configuration, on
// loopback addresses of its own, and ends them by their process ids.
package integration

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// scratch holds what is made once for all tests.
var scratch string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if address := os.Getenv(tunnelVariable); address != "" {
		if err := tunnel(address); err != nil {
			panic(err)
		}
		return 0
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // the tests wait more than they work
		panic(err)
	}
	var err error
	if scratch, err = os.MkdirTemp("", "jackdaw-"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(scratch)
	if err := os.Chmod(scratch, 0o755); err != nil { // the servant runs what is in it
		panic(err)
	}
	return m.Run()
}

// needServers skips the test where install-servers.sh has not run. Where it has, a missing server is a failure.
func needServers(t testing.TB) (dir string) {
	t.Helper()
	dir = os.Getenv("JACKDAW_SERVERS")
	if dir == "" {
		dir = "/opt/jackdaw-servers"
	}
	switch _, err := os.Stat(filepath.Join(dir, "installed")); {
	case errors.Is(err, fs.ErrNotExist):
		t.Skip("real servers are not installed here: integration/install-servers.sh does it")
	case err != nil:
		t.Fatal(err)
	}
	return dir
}

// binary is the program under test, built once; with the race detector, if the tests have it.
var binary = sync.OnceValues(func() (string, error) {
	if err := declareSources(); err != nil {
		return "", err
	}
	path := filepath.Join(scratch, "jackdaw")
	cmd := exec.Command("go", "build", "-o", path, "jackdaw/cmd/jackdaw")
	if raceEnabled {
		cmd.Args = append(cmd.Args[:2], append([]string{"-race"}, cmd.Args[2:]...)...)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

// declareSources looks at every directory of the module, because go test takes a result from its cache unless something has
// changed that the test was seen to look at.
func declareSources() error {
	return filepath.WalkDir("..", func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == ".git" {
			return filepath.SkipDir
		}
		return err
	})
}
