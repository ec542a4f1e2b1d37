package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"text/template"

	"github.com/spf13/cobra"

	"jackdaw/configs"
	"jackdaw/internal/devca"
	"jackdaw/internal/inherit"
)

func demoCommand() *cobra.Command {
	var level string
	cmd := command("demo", "Show jackdaw at work, without a file", `Start two stores in memory, for two made-up domains, a throw-away certificate authority, and jackdaw
in front of them, with all services on high loopback ports. Nothing is kept; Ctrl-C ends it.`,
		func(cmd *cobra.Command) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return demo(ctx, cmd.OutOrStdout(), level)
		})
	cmd.Flags().StringVar(&level, "log", "warn", "log `level`: debug, info, warn or error")
	return cmd
}

// demoDomain is one of the two domains: who lives there, and in which store.
type demoDomain struct {
	Domain, Host, Local, Password, Folder, Store string
	Addresses                                    map[string]string // of the store, by protocol
}

func (d demoDomain) User() string { return d.Local + "@" + d.Domain }

var demoDomains = []demoDomain{
	{Domain: "a.example", Host: "mail.a.example", Local: "alice", Password: "wonderland", Folder: "Tea party", Store: "north"},
	{Domain: "b.example", Host: "mail.b.example", Local: "bob", Password: "builder", Folder: "Can we fix it", Store: "south"},
}

// demoSetting is what the templates of the demo are filled with.
type demoSetting struct {
	Program string // as it was called
	Dir     string
	Level   string
	Port    map[string]int // by service
	Domains []demoDomain
}

func (s demoSetting) file() string { return filepath.Join(s.Dir, "jackdaw.toml") }

// demoPorts are the ports of the demo, if they are free.
var demoPorts = map[configs.Service]int{
	configs.IMAP: 10143, configs.IMAPS: 10993,
	configs.POP3: 10110, configs.POP3S: 10995,
	configs.Submission: 10587, configs.Submissions: 10465,
	configs.Sieve: 14190, configs.LMTP: 10024,
}

func demo(ctx context.Context, out io.Writer, level string) error {
	dir, err := os.MkdirTemp("", "jackdaw-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	setting := demoSetting{Program: os.Args[0], Dir: dir, Level: level, Domains: slices.Clone(demoDomains)}
	if setting.Port, err = freePorts(demoPorts); err != nil {
		return err
	}
	if err := demoCertificates(dir, setting.Domains); err != nil {
		return err
	}
	stop, err := startDemoStores(setting.Domains)
	defer stop()
	if err != nil {
		return err
	}
	config, err := demoConfig(setting)
	if err != nil {
		return err
	}
	d := newDaemon(config, inherit.NewSockets())
	d.file = setting.file()
	defer d.lines.flush(logPatience)
	if err = d.apply(config); err == nil {
		err = demoGuide.Execute(out, setting)
	}
	if err == nil {
		d.show(ctx)
		fmt.Fprintln(out)
	}
	return errors.Join(err, d.close(context.Background()))
}

// show serves until the context ends. Its file may be changed and read again; but the stores would not outlive an upgrade.
func (d *daemon) show(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-d.admin.orders.placed:
			if o.what == orderUpgrade {
				o.done <- outcome{err: errors.New("a demo cannot be upgraded: end it, and begin another one")}
				continue
			}
			d.carryOut(o)
		}
	}
}

// freePorts returns for each service the port that is wished for, or any other if that is taken.
func freePorts(wishes map[configs.Service]int) (map[string]int, error) {
	ports := make(map[string]int)
	for service, wish := range wishes {
		l, err := listenLoopback(wish)
		if err != nil {
			l, err = listenLoopback(0)
		}
		if err != nil {
			return nil, fmt.Errorf("finding a free port instead of %d: %w", wish, err)
		}
		defer l.Close() // not before all are found, lest two get the same
		ports[string(service)] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func listenLoopback(port int) (net.Listener, error) {
	return net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
}

// demoCertificates lays out one directory for each domain, and beside them the authority that clients must trust.
func demoCertificates(dir string, domains []demoDomain) error {
	ca, err := devca.New()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), ca.PEM, 0o644); err != nil {
		return err
	}
	for _, domain := range domains {
		leaf, err := ca.Issue(devca.Options{Names: []string{domain.Host}})
		if err != nil {
			return err
		}
		into := filepath.Join(dir, "certs", domain.Host)
		if err := os.MkdirAll(into, 0o700); err != nil {
			return err
		}
		if err := leaf.Write(into, "tls"); err != nil {
			return err
		}
	}
	return nil
}

//go:embed demo.toml
var demoTOML string

//go:embed demo.txt
var demoText string

var (
	demoFile  = template.Must(template.New("demo.toml").Option("missingkey=error").Parse(demoTOML))
	demoGuide = template.Must(template.New("demo.txt").Option("missingkey=error").Parse(demoText))
)

// demoConfig writes the configuration into the demo's directory, where it can be read, and loads it.
func demoConfig(setting demoSetting) (*configs.Config, error) {
	file, err := os.Create(setting.file())
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := demoFile.Execute(file, setting); err != nil {
		return nil, err
	}
	return configs.Load(setting.file())
}
