package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMain: this program starts itself as the store.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "store" {
		fmt.Fprintln(os.Stderr, serveStore(os.Args[2:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestTrials has everybody who is installed do a little work on all services. How long it takes is nobody's concern here.
func TestTrials(t *testing.T) {
	jackdaw := filepath.Join(t.TempDir(), "jackdaw")
	if said, err := exec.Command("go", "build", "-o", jackdaw, "../../cmd/jackdaw").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	chosen, err := choose([]string{jackdaw}, strings.Join(peerNames(), ","))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{temp: t.TempDir(), ctx: t.Context(), seconds: 0.1, contenders: chosen}
	if err := b.certify(); err != nil {
		t.Fatal(err)
	}
	if b.modes, err = chooseModes("hs-resumed,login-imaps,login-pop3s,login-imap,login-submission,login-sieve,noop-1,down-1"); err != nil {
		t.Fatal(err)
	}
	for i := range b.modes {
		for k := range b.contenders {
			m, c := &b.modes[i], &b.contenders[k]
			if !slices.Contains(c.services, m.service) {
				continue
			}
			trial, err := b.try(c, m)
			if err != nil {
				t.Errorf("%s, %s: %v", m.name, c.name, err)
				continue
			}
			for _, row := range m.rows {
				if trial.figures[row.key] <= 0 {
					t.Errorf("%s, %s: %v %s", row.key, c.name, trial.figures[row.key], row.unit)
				}
			}
		}
	}
}
