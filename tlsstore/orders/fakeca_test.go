package orders

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeCA is an authority without a network: what is sent to it is answered at once.
type fakeCA struct {
	t   testing.TB
	key *ecdsa.PrivateKey

	kinds []string // of challenges that it offers

	mu sync.Mutex

	lifetime time.Duration                                            // of what it issues
	reminded bool                                                     // that names were proven before
	binding  string                                                   // the external account that it asks for; "": none
	validate func(kind, name, token string) error                     // looks at the answer to a challenge
	odd      func(w http.ResponseWriter, r *http.Request) (done bool) // answers in its place

	asked    map[string]int // by the first part of the path
	accounts map[string]string
	orders   []string // the names
	serial   int64
}

func newFakeCA(t testing.TB) *fakeCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeCA{
		t: t, key: key, lifetime: 90 * 24 * time.Hour, kinds: []string{"dns-01", http01, tlsALPN01},
		validate: func(string, string, string) error { return nil },
		odd:      func(http.ResponseWriter, *http.Request) bool { return false },
		asked:    make(map[string]int), accounts: make(map[string]string),
	}
}

// RoundTrip lets it stand in for the network.
func (ca *fakeCA) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	w.Header().Set("Replay-Nonce", "nonce")
	ca.ServeHTTP(w, r)
	return w.Result(), r.Context().Err()
}

// change lets it be another, while it is asked.
func (ca *fakeCA) change(change func()) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	change()
}

// count is how often a part of it was asked.
func (ca *fakeCA) count(part string) int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.asked[part]
}

// ordered lists the names that certificates were ordered for.
func (ca *fakeCA) ordered() string {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return strings.Join(ca.orders, " ")
}

func (ca *fakeCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	part, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	ca.mu.Lock()
	ca.asked[part]++
	odd := ca.odd
	ca.mu.Unlock()
	if odd(w, r) {
		return
	}
	switch part {
	case "directory":
		reply(w, 200, map[string]any{
			"newNonce": base + "nonce", "newAccount": base + "account", "newOrder": base + "order",
			"meta": map[string]string{"termsOfService": base + "terms"},
		})
	case "nonce":
	case "account":
		ca.account(w, decodeJWS(ca.t, r))
	case "order":
		ca.order(w, rest, decodeJWS(ca.t, r))
	case "authorization", "challenge":
		ca.authorization(w, part, rest)
	case "finalize":
		ca.finalize(w, rest, decodeJWS(ca.t, r))
	case "certificate":
		_, _ = w.Write(ca.issue(rest))
	default:
		http.NotFound(w, r)
	}
}

const base = "https://ca.example/"

func reply(w http.ResponseWriter, status int, body any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// problem answers with an error (RFC 8555 section 6.7).
func problem(w http.ResponseWriter, status int, kind, detail string) {
	reply(w, status, map[string]string{"type": "urn:ietf:params:acme:error:" + kind, "detail": detail})
}

// jws is what a client has sent (RFC 8555 section 6.2). Signatures are left to package acme and to Pebble.
type jws struct {
	header, payload map[string]any
}

func decodeJWS(t testing.TB, r *http.Request) (j jws) {
	var raw struct{ Protected, Payload string }
	if err := json.NewDecoder(r.Body).Decode(&raw); err != nil {
		t.Errorf("%s: %v", r.URL, err)
	}
	for text, into := range map[string]*map[string]any{raw.Protected: &j.header, raw.Payload: &j.payload} {
		data, err := base64.RawURLEncoding.DecodeString(text)
		if err == nil && len(data) > 0 {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			t.Errorf("%s: %v", r.URL, err)
		}
	}
	return j
}

// account knows an account by its key, and opens one unless it is only asked for.
func (ca *fakeCA) account(w http.ResponseWriter, j jws) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	key := fmt.Sprint(j.header["jwk"])
	bound, _ := j.payload["externalAccountBinding"].(map[string]any)
	status := http.StatusOK
	if ca.accounts[key] == "" {
		switch {
		case j.payload["onlyReturnExisting"] == true:
			problem(w, http.StatusBadRequest, "accountDoesNotExist", "nobody is known by this key")
			return
		case j.payload["termsOfServiceAgreed"] != true:
			problem(w, http.StatusForbidden, "userActionRequired", "the terms are not agreed to")
			return
		case ca.binding != "" && !strings.Contains(protected(bound), ca.binding):
			problem(w, http.StatusForbidden, "externalAccountRequired", "the account is not bound")
			return
		}
		status = http.StatusCreated
		ca.accounts[key] = fmt.Sprintf("%saccount/%d %v", base, len(ca.accounts), j.payload["contact"])
	}
	url, _, _ := strings.Cut(ca.accounts[key], " ")
	w.Header().Set("Location", url)
	reply(w, status, map[string]string{"status": "valid"})
}

func protected(bound map[string]any) string {
	text, _ := bound["protected"].(string)
	data, _ := base64.RawURLEncoding.DecodeString(text)
	return string(data)
}

// order takes a new one, or shows one. The name is the order's number, too.
func (ca *fakeCA) order(w http.ResponseWriter, name string, j jws) {
	status, state := http.StatusOK, "ready"
	if name == "" {
		identifiers := j.payload["identifiers"].([]any)
		name = identifiers[0].(map[string]any)["value"].(string)
		status, state = http.StatusCreated, "pending"
		ca.mu.Lock()
		ca.orders = append(ca.orders, name)
		ca.mu.Unlock()
	}
	w.Header().Set("Location", base+"order/"+name)
	reply(w, status, map[string]any{
		"status": state, "authorizations": []string{base + "authorization/" + name}, "finalize": base + "finalize/" + name,
	})
}

// authorization shows the challenges of a name; one that is accepted is looked at when somebody asks next what has come of
// it.
func (ca *fakeCA) authorization(w http.ResponseWriter, part, name string) {
	name, kind, _ := strings.Cut(name, "/")
	ca.mu.Lock()
	accepted, validate, reminded := ca.accounts["accepted "+name], ca.validate, ca.reminded
	if part == "challenge" {
		ca.accounts["accepted "+name] = kind
		accepted = ""
	} else {
		delete(ca.accounts, "accepted "+name)
	}
	ca.mu.Unlock()
	status := "pending"
	failed := make(map[string]any)
	if reminded {
		status = "valid"
	} else if accepted != "" {
		status = "valid"
		if err := validate(accepted, name, token(name)); err != nil {
			status = "invalid"
			failed[accepted] = map[string]any{
				"status": 403, "type": "urn:ietf:params:acme:error:unauthorized", "detail": err.Error(),
			}
		}
	}
	var list []any
	for _, kind := range ca.kinds {
		list = append(list, map[string]any{
			"type": kind, "url": base + "challenge/" + name + "/" + kind, "token": token(name),
			"status": status, "error": failed[kind],
		})
	}
	reply(w, 200, map[string]any{
		"status": status, "identifier": map[string]string{"type": "dns", "value": name}, "challenges": list,
		"type": kind, "url": base + "challenge/" + name + "/" + kind,
	})
}

func token(name string) string { return base64.RawURLEncoding.EncodeToString([]byte(name)) }

// finalize keeps the request for the certificate in its address.
func (ca *fakeCA) finalize(w http.ResponseWriter, name string, j jws) {
	reply(w, 200, map[string]any{"status": "valid", "certificate": base + "certificate/" + j.payload["csr"].(string)})
}

func (ca *fakeCA) issue(csr string) []byte {
	der, err := base64.RawURLEncoding.DecodeString(csr)
	if err != nil {
		ca.t.Error(err)
		return nil
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		ca.t.Error(err)
		return nil
	}
	ca.mu.Lock()
	ca.serial++
	serial, lifetime := ca.serial, ca.lifetime
	ca.mu.Unlock()
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fake"}}
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: request.DNSNames,
		NotBefore: time.Now(), NotAfter: time.Now().Add(lifetime),
	}, authority, request.PublicKey, ca.key)
	if err != nil {
		ca.t.Error(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf})
}
