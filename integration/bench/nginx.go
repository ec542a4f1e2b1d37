package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// nginxText runs one worker on its one processor, and asks our auth server, as nginx has to ask some server.
const nginxText = `$module
daemon off;
pid pid;
error_log stderr error;
worker_processes 1;
worker_rlimit_nofile 20000;
events { worker_connections 19000; multi_accept on; }
mail {
	auth_http $store_auth/;
	server_name mail.bench.example;
	proxy_buffer $buffer;
	timeout 35m;
	ssl_certificate mail.crt;
	ssl_certificate_key mail.key;
	ssl_protocols TLSv1.2 TLSv1.3;
	ssl_prefer_server_ciphers on;
	ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256;
	ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
	ssl_ecdh_curve X25519:prime256v1;
	ssl_session_cache shared:tls:10m;
	imap_capabilities IMAP4rev1 LITERAL+ ID IDLE;
	xclient off;
	server { listen $imaps ssl; protocol imap; }
	server { listen $imap; protocol imap; starttls only; }
	server { listen $pop3s ssl; protocol pop3; }
	server { listen $submission; protocol smtp; starttls only; smtp_auth plain; proxy_smtp_auth on; }
}
`

// nginxConfig gives nginx larger buffers where much is moved: each session would pay for them. By default they are of one page.
func nginxConfig(t *trial) ([]string, error) {
	buffer := "4k"
	if t.moves {
		buffer = "32k"
	}
	if err := t.leaf.Write(t.dir, "mail"); err != nil {
		return nil, err
	}
	text := t.fill(nginxText, map[string]string{"module": nginxModule(t.contender.program), "buffer": buffer})
	return []string{"-p", t.dir, "-e", "stderr", "-c", t.file("nginx.conf")}, t.write("nginx.conf", text)
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
