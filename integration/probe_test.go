package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// probed is what jackdaw probe tells, as far as it matters here.
type probed struct {
	Capabilities, Mechanisms []string
	TLS                      struct{ Certificates []struct{ Names []string } }
	Login                    struct{ Accepted bool }
	Problems                 []string
}

// probe has jackdaw probe look at a jackdaw, and log in if there is a user.
func (jd *jackdaw) probe(t testing.TB, service, name, user string) probed {
	t.Helper()
	args := []string{jd.at(ports()[service]), "--service", service, "--sni", name, "--ca", jd.caFile()}
	if user != "" {
		args = append(args, "--user", user)
	}
	return probe(t, args...)
}

// probe runs jackdaw probe with the password of every user. It must be of one mind with itself about how it ends.
func probe(t testing.TB, args ...string) probed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), built(t), append([]string{"probe", "--json", "--timeout", patience.String()}, args...)...)
	cmd.Stdin = strings.NewReader(password)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 1) {
		t.Fatalf("%s: %v\n%s", cmd, err, errOut.Bytes())
	}
	var r probed
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out, errOut.Bytes())
	}
	if ok := err == nil; ok != (len(r.Problems) == 0) {
		t.Errorf("jackdaw probe ends with %v and has the problems %q", err, r.Problems)
	}
	return r
}
