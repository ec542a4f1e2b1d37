package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"jackdaw/internal/devca"
)

// TestOldConfigurations: what a page shows as the configuration of another program is one that the program takes.
func TestOldConfigurations(t *testing.T) {
	servers := needServers(t)
	for _, test := range []struct {
		page    string
		certs   string   // where the configuration has its certificates
		endings []string // of the files there
		blocks  []int    // of the page, that are files for the program
		command func(dir string, files []string) *exec.Cmd
	}{
		{"from-haproxy.md", "/etc/haproxy/certs", []string{".pem"}, []int{0}, func(_ string, files []string) *exec.Cmd {
			return exec.Command("haproxy", "-c", "-f", files[0])
		}},
		{"from-nginx.md", "/etc/nginx", []string{".crt", ".key"}, []int{0}, func(dir string, files []string) *exec.Cmd {
			nginx := filepath.Join(servers, "nginx")
			return exec.Command(filepath.Join(nginx, "usr/sbin/nginx"), "-t", "-p", dir, "-c", files[0], "-e", "stderr", "-g",
				"pid "+dir+"/pid; load_module "+nginx+"/usr/lib/nginx/modules/ngx_mail_module.so;")
		}},
		{"from-dovecot.md", "/etc/dovecot/certs", []string{".pem", ".key"}, []int{0}, doveconf},
		{"from-dovecot.md", "/etc/dovecot/certs", []string{".pem", ".key"}, []int{2}, doveconf},
		{"from-cyrus-murder.md", "/etc/cyrus", nil, []int{0, 1}, func(_ string, files []string) *exec.Cmd {
			cyrus := filepath.Join(servers, "cyrus")
			libraries, _ := filepath.Glob(filepath.Join(cyrus, "usr/lib/*-linux-*"))
			// It prints the lines that it does not know, and is content.
			return exec.Command("env", "LD_LIBRARY_PATH="+strings.Join(libraries, ":"), "CYRUS_USER="+servant(t).Username, "sh", "-c",
				`! "$0" "$@" | grep .`, filepath.Join(cyrus, "usr/lib/cyrus/bin/cyr_info"), "-C", files[1], "-M", files[0], "conf-lint")
		}},
	} {
		dir := serverDir(t)
		writeOldCertificates(t, filepath.Join(dir, "certs"), test.endings)
		private := strings.NewReplacer(test.certs, dir+"/certs",
			"load_module modules/ngx_mail_module.so;\n", "", // it is not where nginx looks
			"listen   ", "listen 127.0.0.1:10") // nginx tries the ports, too
		blocks := plainBlocks(t, test.page)
		var files []string
		for i, block := range test.blocks {
			files = append(files, filepath.Join(dir, fmt.Sprintf("conf%d", i)))
			write(t, files[i], private.Replace(blocks[block]))
		}
		cmd := asServant(t, test.command(dir, files))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %v\n%s", test.page, cmd, err, out)
		}
	}
}

func doveconf(_ string, files []string) *exec.Cmd {
	return exec.Command("doveconf", "-n", "-c", files[0])
}

// plainBlocks returns the blocks of a page that are no TOML.
func plainBlocks(t *testing.T, page string) (blocks []string) {
	data, err := os.ReadFile(filepath.Join("../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$").FindAllStringSubmatch(string(data), -1) {
		if block[1] == "" {
			blocks = append(blocks, block[2])
		}
	}
	return blocks
}

// writeOldCertificates makes the files that the pages name; a .pem has chain and key.
func writeOldCertificates(t *testing.T, dir string, endings []string) {
	mustMkdir(t, dir, 0o700)
	give(t, dir)
	leaf, err := newCA(t).Issue(devca.Options{Names: []string{"mail.example.net", "mail.b.example"}})
	if err != nil {
		t.Fatal(err)
	}
	chain, key := string(leaf.ChainPEM), string(leaf.KeyPEM)
	texts := map[string]string{".crt": chain, ".key": key, ".pem": chain + key}
	for _, name := range []string{"mail.example.net", "mail.b.example"} {
		for _, ending := range endings {
			write(t, filepath.Join(dir, name+ending), texts[ending])
		}
	}
}
