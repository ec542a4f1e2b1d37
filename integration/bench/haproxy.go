package main

import (
	"fmt"
	"os/exec"
	"strings"
)

// haproxyConfig ends TLS and knows nothing of mail: everything behind it is the store's own. One thread has one processor; the
// ciphers and the group are those that all are measured with.
func haproxyConfig(t *trial) ([]string, error) {
	pem, err := t.write("haproxy.pem", string(t.leaf.ChainPEM)+string(t.leaf.KeyPEM))
	if err != nil {
		return nil, err
	}
	file, err := t.write("haproxy.cfg", fmt.Sprintf(`global
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
	bind %s ssl crt %[2]s
	server store %[3]s

listen pop3s
	bind %[4]s ssl crt %[2]s
	server store %[5]s
`, t.addresses["imaps"], pem, t.stores["imap"], t.addresses["pop3s"], t.stores["pop3"]))
	return []string{"-db", "-f", file}, err
}

func haproxyVersion(program string) string {
	said, _ := exec.Command(program, "-v").Output()
	_, version, _ := strings.Cut(string(said), "version ")
	version, _, _ = strings.Cut(version, "-")
	return "HAProxy " + version
}
