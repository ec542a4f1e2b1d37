package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"jackdaw/integration/measure"
)

// startHAProxy starts HAProxy with a set of certificates. It ends connections after the handshake, as there is nothing
// behind it. If there is one already, the new one takes its place as in a reload.
func (b *bench) startHAProxy(s *set, before *measure.Server) (*measure.Server, error) {
	addresses, err := measure.FreeAddresses("imaps")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(b.temp, "haproxy.cfg")
	args := []string{"-db", "-f", file}
	if before != nil {
		addresses = before.Addresses
		args = append(args, "-sf", fmt.Sprint(before.PID()))
	}
	// Without ssl-load-extra-files it would look for five more files beside each certificate.
	config := fmt.Sprintf(`global
	maxconn 4000
	ssl-load-extra-files none
	stats socket %s level admin

defaults
	mode tcp
	timeout connect 10s
	timeout client 1m
	timeout server 1m

frontend imaps
	bind %s ssl crt %s
	tcp-request session reject
`, b.haproxySocket(), addresses["imaps"], s.served())
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return measure.Start(b.ctx, b.temp, "haproxy", addresses, b.haproxy, args...)
}

// haproxyVersion is ", HAProxy 2.6.12", or nothing where that is not installed.
func (b *bench) haproxyVersion() string {
	if b.haproxy == "" {
		return ""
	}
	said, _ := exec.Command(b.haproxy, "-v").Output()
	_, version, _ := strings.Cut(string(said), "version ")
	version, _, _ = strings.Cut(version, "-")
	return ", HAProxy " + version
}

func (b *bench) haproxySocket() string { return filepath.Join(b.temp, "haproxy.sock") }

// reload renews a certificate in the three ways of HAProxy: it does not look at the file, somebody gives it the new one by
// its Runtime API, or somebody starts another HAProxy in its place.
func (t *trial) reload() error {
	if err := t.ignored(); err != nil {
		return err
	}
	if err := t.told(); err != nil {
		return err
	}
	if t.count > affordable {
		return nil // it would take as long as the start, and twice the memory
	}
	r, err := t.renew()
	if err != nil {
		return err
	}
	if err = t.put(r); err != nil {
		return err
	}
	former := t.server
	defer former.Stop()
	if t.server, err = t.startHAProxy(t.set, former); err != nil {
		t.server = former
		return err
	}
	if err = t.shown("imaps", r, often); err != nil {
		return err
	}
	t.figures[reloadTime] = time.Since(t.server.Began).Seconds()
	spent, err := measure.CPU(t.server.PID())
	if err != nil {
		return err
	}
	t.figures[reloadCPU] = spent.Seconds()
	fresh, err := measure.MemoryOf(t.server.PID())
	t.figures[reloadPeak] = megabytes(fresh.Peak) + t.figures[restRSS]
	return err
}

// ignored sees that the file alone changes nothing. Two seconds are enough for what the manual does not promise.
func (t *trial) ignored() error {
	r, err := t.renew()
	if err != nil {
		return err
	}
	if err = t.put(r); err != nil {
		return err
	}
	if err = measure.Sleep(t.ctx, 2*time.Second); err != nil {
		return err
	}
	if t.expect(t.ctx, t.server, "imaps", r) == nil {
		return errors.New("haproxy has noticed a renewal by itself, which nobody knew")
	}
	t.figures[renewTime] = math.Inf(1)
	return nil
}

// told gives HAProxy the certificate and the key by its Runtime API.
func (t *trial) told() error {
	r, err := t.renew()
	if err != nil {
		return err
	}
	before, err := measure.CPU(t.server.PID())
	if err != nil {
		return err
	}
	began := time.Now()
	file := t.file(r.name)
	if err = t.tell("set ssl cert " + file + " <<\n" + string(slices.Concat(r.fullchain(), r.key)) + "\n"); err != nil {
		return err
	}
	if err = t.tell("commit ssl cert " + file + "\n"); err != nil {
		return err
	}
	if err = t.expect(t.ctx, t.server, "imaps", r); err != nil {
		return err
	}
	t.figures[toldTime] = time.Since(began).Seconds()
	after, _, err := measure.Rest(t.ctx, t.server.PID())
	t.figures[toldCPU] = (after - before).Seconds()
	return err
}

// tell says a command to the Runtime API, which hangs up after its answer.
func (b *bench) tell(command string) error {
	conn, err := net.Dial("unix", b.haproxySocket())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err = conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		return err
	}
	if _, err = io.WriteString(conn, command); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	what, _, _ := strings.Cut(command, "\n")
	if err != nil {
		return fmt.Errorf("telling haproxy %q: %w", what, err)
	}
	if !strings.Contains(string(answer), "Success") && !strings.Contains(string(answer), "ransaction") {
		return fmt.Errorf("telling haproxy %q: it answers %q", what, answer)
	}
	return nil
}
