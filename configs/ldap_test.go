package configs

import "testing"

func TestLDAPServer(t *testing.T) {
	for url, want := range map[string]struct {
		server   Address
		implicit bool
	}{
		"ldap://ldap.example.net":         {Address{"tcp", "ldap.example.net:389"}, false},
		"ldap://LDAP.example.net:3389/":   {Address{"tcp", "ldap.example.net:3389"}, false},
		"ldaps://[::1]":                   {Address{"tcp", "[::1]:636"}, true},
		"ldapi:///run/openldap/ldapi":     {Address{"unix", "/run/openldap/ldapi"}, false},
		"ldapi://%2frun%2Fopenldap/ldapi": {Address{"unix", "/run/openldap/ldapi"}, false},
		"ldapi:///":                       {Address{"unix", ldapSocket}, false},
	} {
		server, implicit, err := LDAPServer(url)
		if server != want.server || implicit != want.implicit || err != nil {
			t.Errorf("%s: %v, %t, %v", url, server, implicit, err)
		}
	}
}
