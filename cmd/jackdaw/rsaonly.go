package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"jackdaw/tlsstore"
)

// printRSAOnly tells which names cost more than they need to: to sign with RSA takes most of a handshake, and all clients of
// today take ECDSA, too.
func printRSAOnly(out io.Writer, certs []tlsstore.Certificate) {
	const most = 5
	names := rsaOnly(certs)
	if len(names) == 0 {
		return
	}
	listed := strings.Join(names[:min(most, len(names))], ", ")
	if len(names) > most {
		listed += fmt.Sprintf(" and %d more", len(names)-most)
	}
	fmt.Fprintf(out, "with RSA keys alone, whose handshakes take several times the processor time of ECDSA's: %s\n", listed)
}

// rsaOnly lists the names that are served, and have no certificate with another key.
func rsaOnly(certs []tlsstore.Certificate) []string {
	only := make(map[string]bool)
	for _, c := range certs {
		rsa := strings.HasPrefix(c.KeyType, "RSA")
		for _, name := range c.Names {
			if before, met := only[name]; c.Serving {
				only[name] = rsa && (before || !met)
			}
		}
	}
	var names []string
	for name, is := range only {
		if is {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
