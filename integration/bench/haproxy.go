package main

import (
	"os/exec"
	"strings"
)

// haproxyText ends TLS and knows nothing of mail: everything behind it is the store's own. One thread has one processor; the
// ciphers and the group are those that all are measured with.
const haproxyText = `global
	nbthread 1
	maxconn 9000
	ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
	ssl-default-bind-ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256
	ssl-default-bind-curves X25519:P-256
	ssl-default-bind-options ssl-min-ver TLSv1.2

defaults
	mode tcp
	timeout connect 10s
	timeout client 35m
	timeout server 35m

listen imaps
	bind $imaps ssl crt $dir/mail.pem
	server store $store_imap

listen pop3s
	bind $pop3s ssl crt $dir/mail.pem
	server store $store_pop3
`

func haproxyConfig(t *trial) ([]string, error) {
	if err := t.write("mail.pem", string(t.leaf.ChainPEM)+string(t.leaf.KeyPEM)); err != nil {
		return nil, err
	}
	return []string{"-db", "-f", t.file("haproxy.cfg")}, t.write("haproxy.cfg", t.fill(haproxyText, nil))
}

func haproxyVersion(program string) string {
	said, _ := exec.Command(program, "-v").Output()
	_, version, _ := strings.Cut(string(said), "version ")
	version, _, _ = strings.Cut(version, "-")
	return "HAProxy " + version
}
