#!/usr/bin/env bash
# Gets what Postgres's own regression suite needs: the source of exactly the
# Debian package that is installed, its server headers and regress.so built
# with them. All of it goes to build/pg-regress; nothing is installed.
# Prints the directory. Idempotent.
set -euo pipefail
umask 022 # Postgres, as another user, loads and reads these files
cd "$(dirname "$0")/.."

say() { printf 'pg-regress: %s\n' "$*" >&2; }
give_up() { say "$1"; say "$2"; exit 1; }

bin=$(ls -d /usr/lib/postgresql/15/bin 2>/dev/null) || give_up "there is no Debian Postgres 15" "make setup-test installs it"
lib=${bin%/bin}/lib
[ -x "$lib/pgxs/src/test/regress/pg_regress" ] || give_up "$lib has no pg_regress" "apt-get install postgresql-15"
version=$(dpkg-query -W -f '${Version}' postgresql-15)
dir=$(realpath -m build/pg-regress)/$version
if [ -e "$dir/complete" ]; then
  echo "$dir"
  exit 0
fi
for tool in apt-get dpkg-deb dpkg-source gcc make patch; do
  command -v "$tool" >/dev/null || give_up "$tool is needed" "apt-get install apt dpkg-dev gcc make patch"
done

tmp=$dir.tmp
rm -rf "$tmp"
mkdir -p "$tmp/apt/sources" "$tmp/apt/lists/partial" "$tmp/apt/cache/archives/partial"
# The machine's own apt may know no sources, and only root may update it: this
# one is ours alone. It asks the same mirror.
mirror=$(sed -n 's/^URIs: *\(http[^ ]*debian\)\/\{0,1\}$/\1/p' /etc/apt/sources.list.d/*.sources 2>/dev/null | head -n 1)
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
for suite in "${mirror:-http://deb.debian.org/debian} $release" "http://deb.debian.org/debian-security $release-security"; do
  printf 'Types: deb deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n' $suite
done >"$tmp/apt/sources/debian.sources"
cat >"$tmp/apt/apt.conf" <<E2
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$tmp/apt/sources";
Dir::State::Lists "$tmp/apt/lists";
Dir::Cache "$tmp/apt/cache";
APT::Sandbox::User "";
Acquire::Languages "none";
E2
export APT_CONFIG=$tmp/apt/apt.conf
log=$tmp/log
say "fetching the source and the headers of postgresql-15 $version"
(
  cd "$tmp" &&
    apt-get update &&
    apt-get source "postgresql-15=$version" &&
    apt-get download "postgresql-server-dev-15=$version"
) >"$log" 2>&1 || { tail -n 5 "$log" >&2; give_up "apt ended with an error, see above" "is $mirror reachable, and is postgresql-15 $version still there? apt-get upgrade postgresql-15 otherwise"; }
mv "$tmp"/postgresql-15-15.* "$tmp/source" 2>/dev/null || mv "$tmp"/postgresql-15.*/ "$tmp/source"
dpkg-deb -x "$tmp"/postgresql-server-dev-15_*.deb "$tmp/headers"

say "building regress.so"
mkdir "$tmp/dl"
gcc -O2 -fPIC -shared -fwrapv -fno-strict-aliasing -I "$tmp/headers/usr/include/postgresql/15/server" \
  -o "$tmp/dl/regress.so" "$tmp/source/src/test/regress/regress.c"
ln -s "$lib/refint.so" "$lib/autoinc.so" "$tmp/dl/"

# What a Makefile of contrib says of itself, in words a program can read. It
# stands where the Makefile expects the rules of an installed server.
cat >"$tmp/variables.mk" <<'E2'
.DEFAULT_GOAL := variables
.PHONY: variables
variables:
	@echo 'MODULES=$(MODULES) $(MODULE_big)'
	@echo 'EXTENSION=$(EXTENSION)'
	@echo 'REGRESS=$(REGRESS)'
	@echo 'REGRESS_OPTS=$(REGRESS_OPTS)'
	@echo 'ISOLATION=$(ISOLATION)'
	@echo 'ISOLATION_OPTS=$(ISOLATION_OPTS)'
E2
cat >"$tmp/pg_config" <<'E2'
#!/bin/sh
echo "$(dirname "$0")/variables.mk"
E2
chmod 755 "$tmp/pg_config"

rm -rf "$tmp"/apt "$tmp"/*.deb "$tmp"/*.tar.* "$tmp"/*.dsc
chmod -R a+rX "$tmp"
touch "$tmp/complete"
rm -rf "$dir"
mv "$tmp" "$dir"
echo "$dir"
