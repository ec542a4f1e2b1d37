package main

import (
	"net"
	"net/http"
)

// serveAuth answers nginx (ngx_mail_auth_http_module): the store of a protocol is where everybody's mail is. The proxy does
// not answer for what this costs.
func serveAuth(l net.Listener, stores map[string]string) error {
	names := map[string]string{"imap": "imap", "pop3": "pop3", "smtp": "submission"}
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, port, err := net.SplitHostPort(stores[names[r.Header.Get("Auth-Protocol")]])
		if err != nil {
			w.Header().Set("Auth-Status", err.Error())
			return
		}
		w.Header().Set("Auth-Status", "OK")
		w.Header().Set("Auth-Server", host)
		w.Header().Set("Auth-Port", port)
	}))
}
