#!/bin/sh
# Installs the mail servers and clients that the tests and benchmarks in this directory use, from the packages of Debian or
# Ubuntu, and starts none of them. Run it as root, or as a user with sudo without a password. Where it cannot work it says so in
# one line and exits 0: the tests then skip.
#
# Dovecot and the clients are installed by apt. Only unpacked, and so without any configuration, are Cyrus, whose packages exclude
# Dovecot's, Postfix and MariaDB, whose packages would push out this machine's own mail server and its MySQL, PostgreSQL, whose
# package makes a database, OpenLDAP and nginx, and fail2ban, which would lock out this machine's clients; and Prometheus, for its
# promtool, and Chromium, which would come with half a desktop. Ubuntu has no package of that: its test skips. Tests know by
# $JACKDAW_SERVERS/installed that this script has run; a server that is missing then is a failure and not a skip.
set -eu

dir=${JACKDAW_SERVERS:-/opt/jackdaw-servers}
policy=/usr/sbin/policy-rc.d

packages='
	dovecot-core dovecot-imapd dovecot-pop3d dovecot-lmtpd dovecot-submissiond dovecot-managesieved dovecot-sieve
	sasl2-bin libsasl2-modules
	haproxy pebble ca-certificates curl openssl isync sieve-connect swaks libnet-ssleay-perl fetchmail getmail6 mutt python3
	testssl.sh sslscan certbot
	gcc libc6-dev'
cyrus='cyrus-common cyrus-imapd cyrus-pop3d cyrus-murder'
postfix='postfix'
mariadb='mariadb-server-core'
openldap='slapd'
nginx='nginx libnginx-mod-mail'
fail2ban='fail2ban'
prometheus='prometheus'

notice() {
	echo "install-servers.sh: $1; tests with real servers will be skipped" >&2
	exit 0
}

stamp=$(cksum <"$0")
exit_if_done() {
	if [ "$(cat "$dir/installed" 2>/dev/null)" = "$stamp" ]; then
		exit 0
	fi
}
exit_if_done
command -v apt-get >/dev/null || notice 'there is no apt-get here'
if [ "$(id -u)" != 0 ]; then
	sudo -n true 2>/dev/null || notice 'this needs root, or sudo without a password'
	exec sudo -n env JACKDAW_SERVERS="$dir" sh "$0"
fi
umask 022
mkdir -p "$dir" || notice "$dir cannot be made"

# One run at a time; what another has done meanwhile need not be done again.
exec 9>"$dir/lock"
flock 9
exit_if_done
rm -f "$dir/installed"

# No package may start a service. A policy that was here before comes back afterwards, if need be in the next run.
restore() {
	if grep -qs "$mark" "$policy"; then
		rm -f "$policy"
	fi
	if [ -e "$policy.before-jackdaw" ]; then
		mv "$policy.before-jackdaw" "$policy"
	fi
}
mark="jackdaw's tests start servers themselves"
restore
trap restore EXIT
trap 'exit 1' HUP INT TERM
if [ -e "$policy" ]; then
	mv "$policy" "$policy.before-jackdaw"
fi
printf '#!/bin/sh\n# %s\nexit 101\n' "$mark" >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
apt() {
	# Where there is no network it is soon seen.
	apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=1 -o Acquire::http::Timeout=30 "$@"
}

# postgres prints the package of the version that Debian has.
postgres() {
	apt-cache depends postgresql | sed -n 's/^  Depends: \(postgresql-[0-9]*\)$/\1/p'
}

# chromium prints the packages of a browser without a screen, if there are any.
chromium() {
	if apt-cache show chromium-headless-shell >/dev/null 2>&1; then
		echo chromium-headless-shell chromium-common chromium-driver
	fi
}

# needs prints the libraries that Debian's archive says the unpacked packages need, without the alternatives.
needs() {
	# shellcheck disable=SC2046,SC2086 # lists of names
	apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances $cyrus $postfix \
		$mariadb "$(postgres)" $openldap $nginx $(chromium) |
		sed -n 's/^  Depends: \(lib[a-z0-9.+-]*\)$/\1/p' | sort -u
}

add() {
	libraries=$(needs) && [ -n "$libraries" ] || return
	# shellcheck disable=SC2086 # lists of names
	apt install --no-install-recommends $packages $libraries
}

# unpack DIRECTORY PACKAGE... fills a directory below ours. Servers that run from there meanwhile find the new files in it.
unpack() {
	into=$dir/$1
	shift
	rm -rf "$into.new" "$into.old" "$dir/download"
	mkdir "$into.new" "$dir/download"
	(cd "$dir/download" && apt -o APT::Sandbox::User=root download "$@") || return
	for package in "$dir"/download/*.deb; do
		dpkg -x "$package" "$into.new" || return
	done
	if [ -e "$into" ]; then
		mv "$into" "$into.old"
	fi
	mv "$into.new" "$into"
	rm -rf "$into.old" "$dir/download"
}

all() {
	# shellcheck disable=SC2046,SC2086 # lists of names
	add && unpack cyrus $cyrus && unpack postfix $postfix && unpack mariadb $mariadb && unpack postgres "$(postgres)" &&
		unpack openldap $openldap && unpack nginx $nginx && unpack fail2ban $fail2ban && unpack prometheus $prometheus &&
		{ [ -z "$(chromium)" ] || unpack chromium $(chromium); }
}

# The package lists may be missing or old: they are fetched when a first try without has failed.
log=$dir/install.log
if ! all >"$log" 2>&1; then
	apt update >>"$log" 2>&1 || true
	all >>"$log" 2>&1 || notice "the packages could not be installed (see $log)"
fi

# Servers run as this user when the tests run as root; its name is the one that Cyrus's own package gives it.
id cyrus >/dev/null 2>&1 ||
	useradd --system --gid mail --home-dir /nonexistent --shell /usr/sbin/nologin cyrus ||
	notice 'the user cyrus cannot be made'

echo "$stamp" >"$dir/installed"
echo "install-servers.sh: servers and clients are installed, some of them below $dir" >&2
