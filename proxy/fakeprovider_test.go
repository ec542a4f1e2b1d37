package proxy

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// fakeProvider knows what tokens are about (RFC 7662), and fails when it is asked about one without claims.
type fakeProvider struct {
	*httptest.Server
	claims map[string]string // JSON, by token
}

func newFakeProvider(t *testing.T) *fakeProvider {
	f := &fakeProvider{claims: make(map[string]string)}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, known := f.claims[r.PostFormValue("token")]
		switch {
		case !known:
			_, _ = io.WriteString(w, `{"active":false}`)
		case claims == "":
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			_, _ = io.WriteString(w, claims)
		}
	}))
	t.Cleanup(f.Close)
	return f
}
