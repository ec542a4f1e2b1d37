package main

import (
	"strings"
	"testing"

	"jackdaw/tlsstore"
)

func TestRSAOnly(t *testing.T) {
	cert := func(key string, serving bool, names ...string) tlsstore.Certificate {
		return tlsstore.Certificate{KeyType: key, Serving: serving, Names: names}
	}
	var out strings.Builder
	printRSAOnly(&out, []tlsstore.Certificate{
		cert("RSA 2048", true, "both.example", "rsa.example"),
		cert("ECDSA P-256", true, "both.example", "ecdsa.example"),
		cert("RSA 4096", true, "rsa.example", "another.example"),
		cert("ECDSA P-256", false, "another.example"),
		cert("RSA 2048", false, "gone.example"),
	})
	const want = "with RSA keys alone, whose handshakes take several times the processor time of ECDSA's: another.example, rsa.example\n"
	if out.String() != want {
		t.Errorf("got  %swant %s", out.String(), want)
	}
	out.Reset()
	printRSAOnly(&out, []tlsstore.Certificate{cert("ECDSA P-256", true, "a.example")})
	if out.Len() > 0 {
		t.Error("complained:", out.String())
	}
	printRSAOnly(&out, []tlsstore.Certificate{cert("RSA 2048", true, "a", "b", "c", "d", "e", "f", "g")})
	if !strings.HasSuffix(out.String(), ": a, b, c, d, e and 2 more\n") {
		t.Error(out.String())
	}
}
