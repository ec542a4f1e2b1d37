package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// nginxConfig runs one worker on its one processor, and asks our auth server, as nginx has to ask some server. Its buffers are
// of one page by default, which is little for bulk: there it gets larger ones, which every session would pay for.
func nginxConfig(t *trial) ([]string, error) {
	if _, err := t.write("cert.pem", string(t.leaf.ChainPEM)); err != nil {
		return nil, err
	}
	if _, err := t.write("key.pem", string(t.leaf.KeyPEM)); err != nil {
		return nil, err
	}
	buffer := "4k"
	if t.moves {
		buffer = "32k"
	}
	file, err := t.write("nginx.conf", fmt.Sprintf(`%s
daemon off;
pid pid;
error_log stderr error;
worker_processes 1;
worker_rlimit_nofile 20000;
events { worker_connections 19000; multi_accept on; }
mail {
	auth_http %s/;
	server_name mail.bench.example;
	proxy_buffer %s;
	timeout 35m;
	ssl_certificate cert.pem;
	ssl_certificate_key key.pem;
	ssl_protocols TLSv1.2 TLSv1.3;
	ssl_prefer_server_ciphers on;
	ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256;
	ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
	ssl_ecdh_curve X25519:prime256v1;
	ssl_session_cache shared:tls:10m;
	imap_capabilities IMAP4rev1 LITERAL+ ID IDLE;
	xclient off;
	server { listen %s ssl; protocol imap; }
	server { listen %s; protocol imap; starttls only; }
	server { listen %s ssl; protocol pop3; }
	server { listen %s; protocol smtp; starttls only; smtp_auth plain; proxy_smtp_auth on; }
}
`, nginxModule(t.contender.program), t.stores["auth"], buffer,
		t.addresses["imaps"], t.addresses["imap"], t.addresses["pop3s"], t.addresses["submission"]))
	return []string{"-p", t.dir, "-e", "stderr", "-c", file}, err
}

// nginxModule loads the mail module, where it is one of its own: Debian has it beside the program.
func nginxModule(program string) string {
	module := filepath.Join(filepath.Dir(program), "../lib/nginx/modules/ngx_mail_module.so")
	if _, err := os.Stat(module); err != nil {
		return ""
	}
	return "load_module " + module + ";"
}

func nginxVersion(program string) string {
	said, _ := exec.Command(program, "-v").CombinedOutput()
	_, version, _ := strings.Cut(string(said), "nginx/")
	return "nginx " + strings.TrimSpace(version)
}
