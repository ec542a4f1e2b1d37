package orders

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"

	"jackdaw/internal/smallroom"
)

// TestFullDisk: the certificate that is there stays, the log tells once what is wrong, and when there is room again a new one is ordered.
func TestFullDisk(t *testing.T) {
	dir := smallroom.Enter(t)
	if dir == "" {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		f := run(t, ca, dir, Options{}, "mail.a.example", "mail.b.example")
		issued := func(n int) {
			t.Helper()
			if got := ca.count("certificate"); got != n {
				t.Errorf("%d certificates were issued, want %d", got, n)
			}
		}
		before := read(t, dir, certificates, "mail.a.example.pem")
		free := smallroom.Fill(t, dir)
		f.after(80 * day)
		issued(2)
		if said := f.logs.FilterLevelExact(zap.WarnLevel).All(); len(said) != 1 || said[0].Message != "certificate not ordered" {
			t.Errorf("%d warnings: %v", len(said), said)
		}
		for _, name := range []string{"mail.a.example", "mail.b.example"} {
			if s := f.status(name); s.Failures < 10 || !strings.Contains(s.Error, "no space left on device") {
				t.Errorf("%+v", s)
			}
		}
		if read(t, dir, certificates, "mail.a.example.pem") != before {
			t.Error("the certificate has changed")
		}
		free()
		f.after(2 * mostUnheard)
		issued(4)
		if left, _ := filepath.Glob(filepath.Join(dir, "*", ".new-*")); left != nil {
			t.Errorf("%q are left over", left)
		}
	})
}

// TestNoRoomForCertificate: what the authority has issued is not ordered anew because it could not be written.
func TestNoRoomForCertificate(t *testing.T) {
	dir := smallroom.Enter(t)
	if dir == "" {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		var free func()
		ca.odd = func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/certificate/") {
				free = smallroom.Fill(t, dir)
			}
			return false
		}
		f := run(t, ca, dir, Options{}, "mail.example.net")
		f.after(day)
		f.ordered("mail.example.net")
		if s := f.status("mail.example.net"); !s.NotAfter.IsZero() || s.Failures < 10 {
			t.Errorf("%+v", s)
		}
		free()
		f.after(2 * mostUnheard)
		f.ordered("mail.example.net")
		if s := f.status("mail.example.net"); s.NotAfter.IsZero() || s.Failures > 0 {
			t.Errorf("%+v", s)
		}
	})
}
