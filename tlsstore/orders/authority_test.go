package orders

import (
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"jackdaw/internal/devca"
)

type answers func(*http.Request) (*http.Response, error)

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) { return a(r) }

// TestPolite: what an odd authority says of waiting is brought to what is sensible, and its errors are left alone.
func TestPolite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			status       int
			header, want string
		}{
			{200, "3", "3"},
			{200, "", ""},
			{200, "0", ""},
			{200, "-5", ""},
			{200, "86400", "15"},
			{200, "99999999999999999999", ""},
			{200, "Sat, 01 Jan 2000 00:00:07 GMT", "7"},
			{200, "Fri, 31 Dec 1999 23:59:59 GMT", ""},
			{200, "Sun, 02 Jan 2000 00:00:00 GMT", "15"},
			{503, "86400", "86400"},
		} {
			p := polite{answers(func(*http.Request) (*http.Response, error) {
				header := http.Header{"Retry-After": {tt.header}}
				return &http.Response{StatusCode: tt.status, Header: header, Body: http.NoBody}, nil
			})}
			res, err := p.RoundTrip(nil)
			must(t, err)
			if got := res.Header.Get("Retry-After"); got != tt.want {
				t.Errorf("%d with %q becomes %q, want %q", tt.status, tt.header, got, tt.want)
			}
		}
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestEndlessAnswer: nothing that is read takes more memory than it may.
func TestEndlessAnswer(t *testing.T) {
	p := polite{answers(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 400, Header: http.Header{}, Body: io.NopCloser(endless{})}, nil
	})}
	res, err := p.RoundTrip(nil)
	must(t, err)
	if n, err := io.Copy(io.Discard, res.Body); n != maxAnswer || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	failing := errors.New("no network")
	p = polite{answers(func(*http.Request) (*http.Response, error) { return nil, failing })}
	if _, err := p.RoundTrip(nil); err != failing {
		t.Errorf("got %v", err)
	}
}

// TestRetry: a request is sent again a few times, unless the authority has said when.
func TestRetry(t *testing.T) {
	for _, tt := range []struct {
		n, status int
		header    string
		want      time.Duration
	}{
		{1, 400, "", time.Second},
		{3, 502, "", 3 * time.Second},
		{4, 502, "", 0},
		{1, 503, "3600", 0},
		{1, 429, "", 0},
	} {
		header := http.Header{}
		if tt.header != "" {
			header.Set("Retry-After", tt.header)
		}
		if got := retry(tt.n, nil, &http.Response{StatusCode: tt.status, Header: header}); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// TestAuthorityOfTheAuthority: a file that cannot be used is an error of each order, until it can.
func TestAuthorityOfTheAuthority(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "ca.pem")
	fails := func(want string) {
		t.Helper()
		_, err := newTransport(file)
		const deed = "reading the authorities of the ACME server: "
		if err == nil || !strings.HasPrefix(err.Error(), deed) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	fails("no such file")
	keep(t, "nothing", file)
	fails("ca.pem holds no certificate")
	ca, err := devca.New()
	must(t, err)
	keep(t, string(ca.PEM), file)
	if transport, err := newTransport(file); err != nil || transport.TLSClientConfig.RootCAs == nil {
		t.Errorf("%+v, %v", transport, err)
	}
	if transport, err := newTransport(""); err != nil || transport.Proxy == nil {
		t.Errorf("%+v, %v", transport, err)
	}
}
