package backends

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"jackdaw/configs"
)

// clientTLS makes the settings for TLS towards a store: its certificate is always verified. nil where TLS is none.
func clientTLS(access configs.Access) (*tls.Config, error) {
	if access.TLS != configs.TLSStartTLS && access.TLS != configs.TLSImplicit {
		return nil, nil
	}
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         access.TLSName,
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
	if access.TLSCA == "" {
		return config, nil
	}
	pem, err := os.ReadFile(access.TLSCA)
	if err != nil {
		return nil, fmt.Errorf("reading tls_ca: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading tls_ca: no certificate in %s", access.TLSCA)
	}
	return config, nil
}
