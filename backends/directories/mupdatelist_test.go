package directories

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"jackdaw/configs"
)

// checkMailboxes: domains are counted, names can stand in a copy, and a copy is the same again.
func checkMailboxes(t testing.TB, m *mailboxes) {
	t.Helper()
	domains := make(map[string]int)
	for name, at := range m.places {
		if strings.ContainsAny(name, "\t\r\n\x00") {
			t.Errorf("%q is kept", name)
		}
		if domain, _, ok := strings.Cut(name, "!"); ok && domain != "" {
			domains[domain]++
		}
		if at != (place{}) && (at.Value() == "" || strings.ContainsAny(at.Value(), "!\t\r\n ")) {
			t.Errorf("%q is at %q", name, at.Value())
		}
	}
	if !maps.Equal(m.domains, domains) {
		t.Errorf("domains %v, counted %v", domains, m.domains)
	}
	var b bytes.Buffer
	if err := m.write(&b); err != nil {
		t.Fatal(err)
	}
	again, err := readMailboxes(&b)
	if err != nil || !maps.Equal(again.places, m.places) || !maps.Equal(again.domains, m.domains) {
		t.Errorf("a copy of %v is %v: %v", m.places, again, err)
	}
}

func record(what, name, location string) mupdateResponse {
	r := mupdateResponse{what: []byte(what), strings: [2][]byte{[]byte(name), []byte(location)}}
	r.count = map[string]int{"MAILBOX": 3, "RESERVE": 2, "DELETE": 1}[what]
	return r
}

// A copy that is not as it was written is none.
func TestMupdateCopyDamaged(t *testing.T) {
	m := newMailboxes()
	for _, r := range []mupdateResponse{
		record("MAILBOX", "user.anna", "store1!default"), record("RESERVE", "user.bob", "store1!default"), record("MAILBOX", "a.example!user.eve", "store2"),
	} {
		if err := m.apply(r); err != nil {
			t.Fatal(err)
		}
	}
	checkMailboxes(t, m)
	path := filepath.Join(t.TempDir(), "copy")
	if err := m.save(path); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loadMailboxes(path); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, err := readMailboxes(bytes.NewReader(whole[:n])); !errors.Is(err, errCopy) {
			t.Errorf("the first %d octets: %v", n, err)
		}
		damaged := bytes.Clone(whole)
		damaged[n] ^= 1
		if _, err := readMailboxes(bytes.NewReader(damaged)); err == nil {
			t.Errorf("octet %d is another one: %q", n, damaged)
		}
	}
	for _, other := range []string{"", "\n", "store1\n", strings.Repeat("x", 1<<20), copyHeader + strings.Repeat("x", 1<<20)} {
		if _, err := readMailboxes(strings.NewReader(other)); !errors.Is(err, errCopy) {
			t.Errorf("%.40q: %v", other, err)
		}
	}
}

// Whatever lines stand in a copy, under a sum that is right: what is taken is what would be written.
func FuzzMupdateCopy(f *testing.F) {
	f.Add("user.anna\tstore1\nuser.bob\t\na!b\tc\n")
	f.Add("user/anna.b\tstore1!x\n")
	f.Fuzz(func(t *testing.T, lines string) {
		text := copyHeader + lines
		text += fmt.Sprintf("end %d %08x\n", strings.Count(lines, "\n"), crc32.ChecksumIEEE([]byte(text)))
		if m, err := readMailboxes(strings.NewReader(text)); err == nil {
			checkMailboxes(t, m)
		}
	})
}

// manyMailboxes is the list of a large Murder: a million users on thirty servers. Their folders are not kept.
func manyMailboxes(t testing.TB, users int) (m *mailboxes, names int) {
	m = newMailboxes()
	for i := range users {
		name := fmt.Sprintf("d%05d.example!user.user%07d", i%50000, i)
		for _, folder := range []string{"", ".Sent", ".Trash"} {
			if err := m.apply(record("MAILBOX", name+folder, fmt.Sprintf("store%d.example.net!default", i%30))); err != nil {
				t.Fatal(err)
			}
		}
		names += len(name)
	}
	return m, names
}

// BenchmarkMupdateMemory tells what a mailbox takes in memory beyond its name.
func BenchmarkMupdateMemory(b *testing.B) {
	const users = 1_000_000
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		m, names := manyMailboxes(b, users)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc)-float64(names))/users, "B/mailbox")
		runtime.KeepAlive(m)
	}
}

// BenchmarkMupdateLookup asks for users on all cores.
func BenchmarkMupdateLookup(b *testing.B) {
	const users = 1_000_000
	d := &murder{asked: make(chan struct{})}
	close(d.asked)
	d.list, _ = manyMailboxes(b, users)
	asked := make([]Query, 100_000)
	for i := range asked {
		n := i * 7919 % users
		asked[i] = Query{Local: fmt.Sprintf("user%07d", n), Domain: fmt.Sprintf("d%05d.example", n%50000), Service: configs.IMAPS}
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := d.Lookup(b.Context(), asked[i%len(asked)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkMupdateCopy writes and reads a copy of a million mailboxes.
func BenchmarkMupdateCopy(b *testing.B) {
	m, _ := manyMailboxes(b, 1_000_000)
	path := filepath.Join(b.TempDir(), "copy")
	if err := m.save(path); err != nil {
		b.Fatal(err)
	}
	b.Run("save", func(b *testing.B) {
		for b.Loop() {
			if err := m.save(path); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if _, err := loadMailboxes(path); err != nil {
				b.Fatal(err)
			}
		}
	})
}
