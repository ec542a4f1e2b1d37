package directories

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// clientTLS makes the settings for TLS towards a source, whose certificate is always verified: by the authorities in a PEM
// file, or by the system's where there is none. The caller sets ServerName.
func clientTLS(file string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if file == "" {
		return c, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading tls_ca: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading tls_ca: no certificate in %s", file)
	}
	return c, nil
}
