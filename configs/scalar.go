package configs

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// scalar tells how a Go type stands in the file.
type scalar struct {
	kind  unstable.Kind
	form  string // completes "must be "
	parse func(text string) (any, error)
}

// scalars are the types that one value of the file fills.
var scalars = map[reflect.Type]scalar{
	reflect.TypeFor[bool]():          {unstable.Bool, "true or false", func(s string) (any, error) { return s == "true", nil }},
	reflect.TypeFor[int]():           {unstable.Integer, "a whole number", parseInt},
	reflect.TypeFor[string]():        {unstable.String, "a string", func(s string) (any, error) { return s, nil }},
	reflect.TypeFor[time.Duration](): {unstable.String, `a duration such as "30s"`, parseDuration},
	reflect.TypeFor[Interval]():      {unstable.String, `"off" or a duration such as "10s"`, parseInterval},
	reflect.TypeFor[Rate]():          {unstable.String, `"off" or a rate such as "20/min"`, parseRate},
	reflect.TypeFor[fs.FileMode]():   {unstable.String, `a mode such as "0660"`, parseMode},
	reflect.TypeFor[Service]():       {unstable.String, `a service such as "imap"`, parseService},
	reflect.TypeFor[TLSMode]():       {unstable.String, `"none", "starttls" or "implicit"`, parseTLSMode},
	reflect.TypeFor[TLSVersion]():    {unstable.String, `"1.2" or "1.3"`, parseTLSVersion},
	reflect.TypeFor[KeyType]():       {unstable.String, `"ecdsa" or "rsa"`, parseKeyType},
	reflect.TypeFor[Address]():       {unstable.String, `an address such as "127.0.0.1:143"`, parseAddress},
	reflect.TypeFor[ClientUser]():    {unstable.String, `"email" or "cn"`, parseClientUser},
	reflect.TypeFor[ClientInfo]():    {unstable.String, `"auto", "none", "id", "xclient" or "proxy"`, parseClientInfo},
	reflect.TypeFor[Query]():         {unstable.String, "a string", func(s string) (any, error) { return Query(s), nil }},
	reflect.TypeFor[DirectoryKind](): {unstable.String, `a kind such as "sql"`, parseDirectoryKind},
	reflect.TypeFor[PoolHash]():      {unstable.String, `"user", "local" or "domain"`, parsePoolHash},
	reflect.TypeFor[OnFailure]():     {unstable.String, `"next" or "fail"`, parseOnFailure},
	reflect.TypeFor[Verify]():        {unstable.String, `"backend", "saslauthd", "dovecot" or "directory"`, parseVerify},
	reflect.TypeFor[AuthRealm]():     {unstable.String, `"apart" or "joined"`, parseAuthRealm},
	reflect.TypeFor[LoginForm]():     {unstable.String, `"same", "authzid", "master" or "xclient"`, parseLoginForm},
	reflect.TypeFor[netip.Addr]():    {unstable.String, `an IP address such as "192.0.2.1"`, parseIP},
	reflect.TypeFor[Networks]():      {unstable.String, `a network such as "192.0.2.0/24", or "local"`, parseNetwork},
}

func parseInt(s string) (any, error) {
	i, err := strconv.ParseInt(s, 0, 32)
	if err != nil {
		return nil, fmt.Errorf("%s is out of range", s)
	}
	return int(i), nil
}

func parseDuration(s string) (any, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return nil, fmt.Errorf(`%q is no duration such as "30s" or "35m"`, s)
	}
	return d, nil
}

func parseInterval(s string) (any, error) {
	if s == "off" {
		return Interval(0), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return nil, fmt.Errorf(`%q is neither a duration such as "10s" nor "off"`, s)
	}
	if d < time.Second {
		return nil, fmt.Errorf(`%q is less than a second; for none say "off"`, s)
	}
	return Interval(d), nil
}

func parseMode(s string) (any, error) {
	mode, err := strconv.ParseUint(s, 8, 9) // nine bits: permissions and nothing else
	if err != nil {
		return nil, fmt.Errorf(`%q is no mode in octal digits such as "0660"`, s)
	}
	return fs.FileMode(mode), nil
}

func parseService(s string) (any, error) {
	return Service(s), oneOf("service", s, serviceNames(Services()))
}

func parseTLSMode(s string) (any, error) {
	return TLSMode(s), oneOf("mode", s, []string{string(TLSNone), string(TLSStartTLS), string(TLSImplicit)})
}

func parseTLSVersion(s string) (any, error) {
	versions := map[string]TLSVersion{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
	return versions[s], oneOf("version", s, []string{"1.2", "1.3"})
}

func parseClientUser(s string) (any, error) {
	return ClientUser(s), oneOf("place of a name", s, []string{string(ClientUserEmail), string(ClientUserCN)})
}

func parseClientInfo(s string) (any, error) {
	return ClientInfo(s), oneOf("way", s, []string{string(ClientInfoAuto), string(ClientInfoNone), string(ClientInfoID),
		string(ClientInfoXCLIENT), string(ClientInfoProxy)})
}

func parseLoginForm(s string) (any, error) {
	return LoginForm(s), oneOf("form", s, []string{string(LoginSame), string(LoginAuthzid), string(LoginMaster), string(LoginXCLIENT)})
}

func parseIP(s string) (any, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" {
		return nil, fmt.Errorf(`%q is no IP address such as "192.0.2.1" or "2001:db8::1"`, s)
	}
	return ip.Unmap(), nil
}

func oneOf(what, s string, valid []string) error {
	if slices.Contains(valid, s) {
		return nil
	}
	return errors.New("unknown " + what + " " + strconv.Quote(s) + Suggest(s, valid))
}

func serviceNames(services []Service) []string {
	names := make([]string, len(services))
	for i, s := range services {
		names[i] = string(s)
	}
	return names
}
