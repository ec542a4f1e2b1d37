package backends

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"

	"jackdaw/configs"
)

// clientTLS makes the settings for TLS towards a store, for each of its addresses: the certificate is always verified. Where
// TLS is none there are none.
func clientTLS(access configs.Access) (map[configs.Address]*tls.Config, error) {
	if access.TLS != configs.TLSStartTLS && access.TLS != configs.TLSImplicit {
		return nil, nil
	}
	roots, err := authorities(access.TLSCA)
	if err != nil {
		return nil, err
	}
	all := make(map[configs.Address]*tls.Config)
	for _, address := range access.Addresses {
		name := access.TLSName
		if name == "" {
			if name, _, err = net.SplitHostPort(address.Address); err != nil {
				return nil, fmt.Errorf("finding the name to verify: %w", err)
			}
		}
		all[address] = &tls.Config{
			MinVersion:         tls.VersionTLS12,
			ServerName:         name,
			RootCAs:            roots,
			ClientSessionCache: tls.NewLRUClientSessionCache(0),
		}
	}
	return all, nil
}

// authorities reads a PEM file; nil stands for the system's.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading tls_ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading tls_ca: no certificate in %s", file)
	}
	return roots, nil
}
