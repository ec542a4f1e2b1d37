package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"jackdaw/configs"
	"jackdaw/internal/devca"
	"jackdaw/tlsstore"
)

// many makes reports of certificates for a0.example, a1.example and so on.
func many(n int) []tlsstore.Certificate {
	certs := make([]tlsstore.Certificate, n)
	for i := range certs {
		name := fmt.Sprintf("a%d.example", i)
		certs[i] = tlsstore.Certificate{Names: []string{name}, NotAfter: time.Now().AddDate(0, 0, 30), Serving: true}
	}
	return certs
}

// A long table has a line for each certificate, and begins before it is complete: its first lines know nothing of the last.
func TestLongTable(t *testing.T) {
	const n = 3500
	certs := many(n)
	long := strings.Repeat("a", 60) + ".example"
	certs[n-1].Names = []string{long}
	var out strings.Builder
	printCerts(&out, certs, time.Now())
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")[1:]
	if len(lines) != n {
		t.Fatalf("%d lines, want %d", len(lines), n)
	}
	for i, c := range certs {
		if !strings.HasPrefix(lines[i], c.Names[0]+"  ") {
			t.Fatalf("line %d is %q", i, lines[i])
		}
	}
	if len(lines[0]) >= len(lines[n-1])-30 {
		t.Errorf("the first line is as wide as the last: %q", lines[0])
	}
}

// What a file holds moves no cursor.
func TestTableIsPrintable(t *testing.T) {
	var out strings.Builder
	printCerts(&out, []tlsstore.Certificate{{Issuer: "CN=\x1b[2J\tB\u202e", ChainFile: "a\nb"}}, time.Now())
	printProblems(&out, []tlsstore.Problem{{File: "c\rd", Text: "bad"}})
	printPassedOver(&out, []tlsstore.Problem{{File: "e\x00f", Text: "no PEM"}})
	if got := out.String(); strings.ContainsAny(got, "\x1b\t\r\x00\u202e") || strings.Count(got, "\n") != 4 {
		t.Errorf("printed %q", got)
	}
}

// The JSON is one document, and one certificate is one line of it.
func TestCertsJSON(t *testing.T) {
	for _, n := range []int{0, 1, 3} {
		report := certsReport{Certificates: many(n), certsRest: certsRest{Problems: []tlsstore.Problem{{Text: "a < b"}}}}
		var out strings.Builder
		must(t, report.writeJSON(&out))
		var again certsReport
		err := json.Unmarshal([]byte(out.String()), &again)
		if err != nil || len(again.Certificates) != n || len(again.Problems) != 1 {
			t.Errorf("%v after %d, %d in %s", err, len(again.Certificates), n, out.String())
		}
		if lines := strings.Count(out.String(), "\n"); lines != n+3 {
			t.Errorf("%d lines, want %d", lines, n+3)
		}
	}
}

// check leaves a long list to certs.
func TestCheckManyCertificates(t *testing.T) {
	ca, err := devca.New()
	must(t, err)
	dir := t.TempDir()
	write := func(i int) {
		leaf, err := ca.Issue(devca.Options{Names: []string{fmt.Sprintf("a%d.example", i)}})
		must(t, err)
		must(t, leaf.Write(dir, fmt.Sprint(i)))
	}
	printed := func() string {
		store := openCerts(&configs.Config{TLS: configs.TLS{Certificates: []string{dir}}})
		defer store.Close()
		var out strings.Builder
		printServed(&out, "jackdaw.toml", store)
		return out.String()
	}
	if got := printed(); got != "no certificates\n" {
		t.Errorf("of none it prints %q", got)
	}
	for i := range 50 {
		write(i)
	}
	if got := printed(); strings.Count(got, "\n") != 51 {
		t.Errorf("of 50 it prints %s", got)
	}
	write(50)
	if got := printed(); got != "51 certificates; jackdaw certs -c jackdaw.toml lists them\n" {
		t.Errorf("of 51 it prints %s", got)
	}
}
