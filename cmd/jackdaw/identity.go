package main

import (
	"fmt"

	"jackdaw/backends"
	"jackdaw/configs"
)

// describeClientInfo says how a store hears of the client's address.
func describeClientInfo(s *backends.Service) string {
	info := s.Access.ClientInfo
	switch info {
	case configs.ClientInfoNone:
		return "none: the store sees the proxy's address"
	case configs.ClientInfoProxy:
		return "proxy: by a PROXY header, version 2"
	case configs.ClientInfoID:
		return "id: by ID"
	case configs.ClientInfoXCLIENT:
		return "xclient: by XCLIENT"
	}
	command := "XCLIENT"
	if s.Protocol == configs.IMAP {
		command = "ID"
	}
	caps, reached := s.Capabilities()
	switch {
	case !reached || s.Protocol == configs.POP3: // whose stores announce it in the greeting
		return fmt.Sprintf("%s: by %s, if the store announces it", info, command)
	case !caps.Has(command):
		return fmt.Sprintf("%s: the store announces no %s, and sees the proxy's address", info, command)
	}
	return fmt.Sprintf("%s: by %s, which the store announces", info, command)
}

// describeLogin says how a user enters a store, under the name there: by password, and by client certificate if they are
// asked for.
func describeLogin(s *backends.Service, name string, external bool) []string {
	access := s.Access
	if s.Protocol == configs.LMTP {
		if access.LoginUser == "" {
			return []string{"none"}
		}
		return []string{fmt.Sprintf("as %s, if the store offers AUTH", access.LoginUser)}
	}
	lines := []string{describeForm(access, access.Login, name, "with the client's own words")}
	if external {
		lines = append(lines, "by client certificate: "+describeForm(access, access.ExternalLogin, name, "not at all"))
	}
	return lines
}

func describeForm(access configs.Access, form configs.LoginForm, name, same string) string {
	switch form {
	case configs.LoginAuthzid:
		return fmt.Sprintf("%s: as %s, on behalf of %s", form, access.LoginUser, name)
	case configs.LoginMaster:
		return fmt.Sprintf("%s: as %s*%s", form, name, access.LoginUser)
	case configs.LoginXCLIENT:
		return fmt.Sprintf("%s: by XCLIENT LOGIN=%s", form, name)
	}
	return fmt.Sprintf("%s: %s", form, same)
}
