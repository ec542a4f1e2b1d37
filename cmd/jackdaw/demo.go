package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/template"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/spf13/cobra"

	"jackdaw/configs"
	"jackdaw/internal/devca"
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
	IMAP, Sieve                                  string // the store's addresses
}

func (d demoDomain) User() string { return d.Local + "@" + d.Domain }

var demoDomains = []demoDomain{
	{Domain: "a.example", Host: "mail.a.example", Local: "alice", Password: "wonderland", Folder: "Tea party", Store: "north"},
	{Domain: "b.example", Host: "mail.b.example", Local: "bob", Password: "builder", Folder: "Can we fix it", Store: "south"},
}

// demoSetting is what the templates of the demo are filled with.
type demoSetting struct {
	Dir                string
	Level              string
	IMAP, IMAPS, Sieve int // ports
	Domains            []demoDomain
}

// The ports of the demo, if they are free.
const (
	demoIMAP  = 10143
	demoIMAPS = 10993
	demoSieve = 14190
)

func demo(ctx context.Context, out io.Writer, level string) error {
	dir, err := os.MkdirTemp("", "jackdaw-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	setting := demoSetting{Dir: dir, Level: level, Domains: append([]demoDomain(nil), demoDomains...)}
	for port, wish := range map[*int]int{&setting.IMAP: demoIMAP, &setting.IMAPS: demoIMAPS, &setting.Sieve: demoSieve} {
		if *port, err = freePort(wish); err != nil {
			return err
		}
	}
	if err := demoCertificates(dir, setting.Domains); err != nil {
		return err
	}
	for i := range setting.Domains {
		stop, err := startDemoStores(&setting.Domains[i])
		if err != nil {
			return err
		}
		defer stop()
	}
	config, err := demoConfig(setting)
	if err != nil {
		return err
	}
	d := newDaemon(config)
	if err := d.apply(config); err != nil {
		return err
	}
	if err := demoGuide.Execute(out, setting); err != nil {
		return err
	}
	<-ctx.Done()
	fmt.Fprintln(out)
	return d.close(context.Background())
}

// freePort returns the port that is wished for, or any other if that is taken.
func freePort(wish int) (int, error) {
	for _, port := range []int{wish, 0} {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err == nil {
			defer l.Close()
			return l.Addr().(*net.TCPAddr).Port, nil
		}
	}
	return 0, fmt.Errorf("finding a free port instead of %d", wish)
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

// startDemoStores starts the stores of one domain and fills in their addresses.
func startDemoStores(d *demoDomain) (stop func(), err error) {
	imapSocket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	sieveSocket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		imapSocket.Close()
		return nil, err
	}
	d.IMAP, d.Sieve = imapSocket.Addr().String(), sieveSocket.Addr().String()

	user := imapmemserver.NewUser(d.User(), d.Password)
	for _, folder := range []string{"INBOX", "Sent", d.Folder} {
		if err := user.Create(folder, nil); err != nil {
			return nil, err
		}
	}
	memory := imapmemserver.New()
	memory.AddUser(user)
	server := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return memory.NewSession(), nil, nil
		},
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}},
		InsecureAuth: true, // the proxy is on the same machine
		Logger:       log.New(io.Discard, "", 0),
	})
	go func() { _ = server.Serve(imapSocket) }()
	go serveDemoSieve(sieveSocket, &demoScripts{user: d.User(), password: d.Password, scripts: map[string]string{}})
	return func() {
		_ = server.Close()
		_ = sieveSocket.Close()
	}, nil
}

//go:embed demo.toml
var demoTOML string

//go:embed demo.txt
var demoText string

var (
	demoFile  = template.Must(template.New("demo.toml").Parse(demoTOML))
	demoGuide = template.Must(template.New("demo.txt").Parse(demoText))
)

// demoConfig writes the configuration into the demo's directory, where it can be read, and loads it.
func demoConfig(setting demoSetting) (*configs.Config, error) {
	path := filepath.Join(setting.Dir, "jackdaw.toml")
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := demoFile.Execute(file, setting); err != nil {
		return nil, err
	}
	return configs.Load(path)
}
