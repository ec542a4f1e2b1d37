package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"jackdaw/integration/measure"
)

// contender is a column of the table.
type contender struct {
	name     string
	program  string // its path
	services []string
	// configure returns the arguments that the program is to be started with.
	configure func(*trial) ([]string, error)
	version   func(program string) string // nil for builds of jackdaw
}

// peers are the programs that jackdaw is compared with. They may be where a user's $PATH does not lead to.
var peers = []contender{
	{"haproxy", "/usr/sbin/haproxy", []string{"imaps", "pop3s"}, haproxyConfig, haproxyVersion},
	{"nginx", servers() + "/nginx/usr/sbin/nginx", []string{"imaps", "imap", "pop3s", "submission"}, nginxConfig, nginxVersion},
	{"dovecot", "/usr/sbin/dovecot", serviceNames(), dovecotConfig, dovecotVersion},
}

// servers is where install-servers.sh puts programs that are only unpacked.
func servers() string { return cmp.Or(os.Getenv("JACKDAW_SERVERS"), "/opt/jackdaw-servers") }

// peer tells whether the contender is not jackdaw.
func (c *contender) peer() bool { return c.version != nil }

func peerNames() []string {
	var names []string
	for _, p := range peers {
		names = append(names, p.name)
	}
	return names
}

// choose finds the programs: peers by their names, and builds of jackdaw.
func choose(builds []string, only string) ([]contender, error) {
	var chosen []contender
	for name := range strings.SplitSeq(only, ",") {
		if name == "none" {
			continue
		}
		i := slices.IndexFunc(peers, func(p contender) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only: there is no %q, but %s", name, strings.Join(peerNames(), ", "))
		}
		c := peers[i]
		if c.program = find(name, c.program); c.program == "" {
			fmt.Fprintf(os.Stderr, "bench: %s is not installed, and is left out\n", name)
			continue
		}
		chosen = append(chosen, c)
	}
	if builds == nil {
		builds = []string{"./jackdaw"}
	}
	for _, build := range builds {
		name, path, ok := strings.Cut(build, "=")
		if !ok {
			name, path = "jackdaw", build
		}
		if slices.ContainsFunc(chosen, func(c contender) bool { return c.name == name }) {
			return nil, fmt.Errorf("-jackdaw: there are two contenders with the name %q", name)
		}
		path, err := filepath.Abs(path)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return nil, fmt.Errorf("-jackdaw: %w", err)
		}
		chosen = append(chosen, contender{name, path, serviceNames(), jackdawConfig, nil})
	}
	return chosen, nil
}

// find returns the first of some programs that is there.
func find(programs ...string) string {
	for _, program := range programs {
		if path, err := exec.LookPath(program); err == nil {
			return path
		}
	}
	return ""
}

// start starts the contender on the proxies' processor, and waits until it takes a login.
func (t *trial) start() error {
	var err error
	if t.addresses, err = measure.FreeAddresses(serviceNames()...); err != nil {
		return err
	}
	args, err := t.contender.configure(t)
	if err != nil {
		return err
	}
	program, args := t.cores.command(t.contender.program, args)
	if t.server, err = measure.Start(t.ctx, t.dir, t.contender.name, t.addresses, program, args...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.ctx, 30*time.Second)
	defer cancel()
	return t.server.Until(ctx, often, func() error { return t.visit(0) })
}

func (t *trial) file(name string) string { return filepath.Join(t.dir, name) }

// write puts a file into the contender's directory.
func (t *trial) write(name, content string) error {
	return os.WriteFile(t.file(name), []byte(content), 0o600)
}

// fill puts values into a configuration: $dir, the contender's addresses by services, the store's as $store_PROTOCOL, and more.
func (t *trial) fill(text string, more map[string]string) string {
	return os.Expand(text, func(name string) string {
		protocol, ok := strings.CutPrefix(name, "store_")
		switch {
		case name == "dir":
			return t.dir
		case ok:
			return t.stores[protocol]
		}
		return cmp.Or(t.addresses[name], more[name])
	})
}
