package configs

import (
	"slices"
	"strings"
)

// checkService looks at what not every service of a backend knows.
func (a *Access) checkService(d *decoder, n *node, service Service) {
	switch a.ClientInfo {
	case ClientInfoID:
		d.checkFit(n, "client_info", string(a.ClientInfo), service, IMAP)
	case ClientInfoXCLIENT:
		d.checkFit(n, "client_info", string(a.ClientInfo), service, POP3, Submission, Sieve, LMTP)
	}
	a.Login = d.loginForm(n, "login", service, a.Login, LoginSame)
	a.ExternalLogin = d.loginForm(n, "external_login", service, a.ExternalLogin, a.Login)
	a.checkCredentials(d, n, service)
}

// checkFit refuses a value that a service does not know. Inherited, it may have been meant for another one.
func (d *decoder) checkFit(n *node, key, value string, service Service, fit ...Service) {
	all := strings.Join(serviceNames(fit), ", ")
	switch {
	case slices.Contains(fit, service):
	case n.values[key] != nil:
		d.errorf(n.values[key], "%s: %q is for %s only", n.values[key].path, value, all)
	case key == "client_info":
		d.errorf(n.at(key), `%s: %q is for %s only; say "auto", or write it into the service's own table`, n.at(key).path, value, all)
	default:
		d.errorf(n.at(key), "%s: %q is for %s only; write it into the service's own table", n.at(key).path, value, all)
	}
}

// loginForm returns the form that holds for a service. LMTP, which has no login, takes none from the backend.
func (d *decoder) loginForm(n *node, key string, service Service, form, unset LoginForm) LoginForm {
	switch {
	case n.get(key) == nil || service == LMTP:
		return unset
	case form == LoginXCLIENT:
		d.checkFit(n, key, string(form), service, Submission)
	case form.asProxy() && n.get("login_user") == nil && n.secret("login_password") == nil:
		d.errorf(n.at(key), "%s = %q needs login_user and login_password_file", key, form)
	}
	return form
}

// asProxy reports whether the proxy logs in by its own name.
func (f LoginForm) asProxy() bool { return f == LoginAuthzid || f == LoginMaster }

// checkCredentials keeps the proxy's name and password from every service that has no use for them.
func (a *Access) checkCredentials(d *decoder, n *node, service Service) {
	user, password := n.get("login_user"), n.secret("login_password")
	switch {
	case !a.needsCredentials(service):
		a.LoginUser, a.LoginPassword = "", ""
	case user == nil && password != nil:
		d.errorf(password, "%s needs login_user", password.path)
	case user != nil && password == nil:
		d.errorf(user, "login_user needs login_password_file")
	}
}

// needsCredentials is true, too, where a form could not be read.
func (a *Access) needsCredentials(service Service) bool {
	return service == LMTP || a.Login.asProxy() || a.ExternalLogin.asProxy() || a.Login == "" || a.ExternalLogin == ""
}
