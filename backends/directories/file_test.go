package directories

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/configs"
)

func openFile(t testing.TB, text string, log *zap.Logger) (Directory, string) {
	t.Helper()
	filePoll = time.Millisecond
	path := filepath.Join(t.TempDir(), "users")
	if text != "" {
		write(t, path, text)
	}
	d, err := Open("accounts", configs.Directory{Kind: configs.DirectoryFile, Path: path}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d, path
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestFile(t *testing.T) {
	d, _ := openFile(t, `
# name            store
anna@a.example	store1
Bob@A.example     store2:143   user=robert only=imap,submission
@b.example        farm
cyrus             store1
`, zap.NewNop())
	for _, tt := range []struct {
		user, domain string
		service      configs.Service
		want         Answer
		err          error
	}{
		{"anna", "a.example", configs.IMAPS, Answer{Backend: "store1"}, nil},
		{"bob", "a.example", configs.IMAPS, Answer{Backend: "store2:143", User: "robert"}, nil},
		{"bob", "a.example", configs.Sieve, Answer{Backend: "store2:143", User: "robert", Refuse: "not permitted in the directory's file"}, nil},
		{"anybody", "b.example", configs.IMAP, Answer{Backend: "farm"}, nil},
		{"cyrus", "", configs.IMAP, Answer{Backend: "store1"}, nil},
		{"cyrus", "a.example", configs.IMAP, Answer{}, ErrNotFound},
		{"eve", "a.example", configs.IMAP, Answer{}, ErrNotFound},
		{"", "b.example", configs.IMAP, Answer{Backend: "farm"}, nil},
	} {
		q := Query{User: tt.user, Local: tt.user, Domain: tt.domain, Service: tt.service}
		if tt.domain != "" {
			q.User += "@" + tt.domain
		}
		got, err := d.Lookup(t.Context(), q)
		if diff := cmp.Diff(tt.want, got); diff != "" || !errors.Is(err, tt.err) {
			t.Errorf("%s: %v\n%s", q.User, err, diff)
		}
	}
}

// waiting counts how often somebody gets ready to wait.
type waiting struct {
	context.Context
	times int
}

func (w *waiting) Done() <-chan struct{} {
	w.times++
	return w.Context.Done()
}

// Whoever has no password, or is not known, waits for his turn to be verified as others do: a clock does not tell who there is.
func TestFileTellsNobodyByTime(t *testing.T) {
	d, _ := openFile(t, "anna@a.example store1 password={PLAIN}secret\nbob@a.example store1\n@b.example farm\n", zap.NewNop())
	for _, tt := range []struct {
		user, domain string
		want         error
	}{
		{"anna@a.example", "a.example", ErrDenied},
		{"bob@a.example", "a.example", ErrDenied},
		{"anybody@b.example", "b.example", ErrDenied},
		{"eve@a.example", "a.example", ErrNotFound},
	} {
		ctx := &waiting{Context: t.Context()}
		_, err := d.Lookup(ctx, Query{User: tt.user, Domain: tt.domain, Service: configs.IMAPS, Verify: true, Secret: "wrong"})
		if err != tt.want || ctx.times == 0 {
			t.Errorf("%s: %v, after %d waits", tt.user, err, ctx.times)
		}
	}
}

// The password stands in the line of the user, and that of a domain has none.
func TestFileVerifies(t *testing.T) {
	d, _ := openFile(t, "anna@a.example store1 password={PLAIN}secret=1\nbob@a.example store1\nodd@a.example store1 password={NONE}x\n@b.example farm\n", zap.NewNop())
	for _, tt := range []struct {
		user, domain, secret string
		err                  error
	}{
		{"anna", "a.example", "secret=1", nil},
		{"anna", "a.example", "secret", ErrDenied},
		{"bob", "a.example", "secret", ErrDenied},
		{"bob", "a.example", "", ErrDenied},
		{"eve", "b.example", "secret", ErrDenied},
		{"eve", "c.example", "secret", ErrNotFound},
	} {
		q := Query{User: tt.user + "@" + tt.domain, Local: tt.user, Domain: tt.domain, Secret: tt.secret, Verify: true, Service: configs.IMAP}
		answer, err := d.Lookup(t.Context(), q)
		if !errors.Is(err, tt.err) || (err == nil) != answer.Verified {
			t.Errorf("%s with %q: %+v, %v; want %v", q.User, tt.secret, answer, err, tt.err)
		}
	}
	odd := Query{User: "odd@a.example", Local: "odd", Domain: "a.example", Secret: "x", Verify: true, Service: configs.IMAP}
	if _, err := d.Lookup(t.Context(), odd); err == nil || errors.Is(err, ErrDenied) {
		t.Errorf("a hash that nobody knows: %v", err)
	}
}

// A file that is broken, empty as on a full disk, or not there, changes nothing; before there was one, nobody is unknown.
func TestFileChanges(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	d, path := openFile(t, "", zap.New(core))
	lookup := func() string {
		answer, err := d.Lookup(t.Context(), anna)
		if err != nil {
			return err.Error()
		}
		return answer.Backend
	}
	await := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); lookup() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("answer %q, want %q", lookup(), want)
			}
		}
	}
	await(errNoFile.Error())
	write(t, path, "anna@a.example store1\n")
	await("store1")
	write(t, path, "anna@a.example store2\n")
	await("store2")
	for _, broken := range []string{"anna@a.example\n", "a store1\na store2\n", "a store1 to=x\n", "a store1 only=imapp\n", "a\x00 store1\n", ""} {
		before := logs.Len()
		write(t, path, broken)
		for deadline := time.Now().Add(10 * time.Second); logs.Len() == before; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%q is no problem", broken)
			}
		}
		if got := lookup(); got != "store2" {
			t.Errorf("%q: %s", broken, got)
		}
	}
	write(t, path, "# nobody\n")
	await(ErrNotFound.Error())
}

func FuzzEntry(f *testing.F) {
	for _, seed := range []string{"store1", "store1 user=a only=imap,lmtp", " \t", "store1 only=", "a  b=c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		e, err := parseEntry(rest)
		if err == nil && (e.backend == "" || strings.ContainsAny(e.backend+e.user, " \t")) {
			t.Errorf("%q: %+v", rest, e)
		}
	})
}

// BenchmarkFile reads a million lines, and tells what they take in memory beyond their text.
func BenchmarkFile(b *testing.B) {
	const users = 1e6
	var text strings.Builder
	for i := range int(users) {
		fmt.Fprintf(&text, "user%07d@d%05d.example store%d\n", i, i%50000, i%30)
	}
	path := filepath.Join(b.TempDir(), "users")
	write(b, path, text.String())
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		data, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		read, err := parseEntries(string(data))
		if err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc)-float64(text.Len()))/users, "B/user")
		runtime.KeepAlive(read)
	}
}
