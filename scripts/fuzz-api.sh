#!/usr/bin/env bash
# Sends generated requests to every call of the API of a Tarn of its own, by the document that
# it serves, and ends with an error when an answer is a 5xx that no document knows, has another
# status, form or content type than the document says, or Tarn is gone. Two rounds: any names, and
# names of what is there. MAX (requests to a call, default 10) and SEED bound and repeat it, PHASES=coverage,fuzzing tries every bound too (long);
# the log and every failure's curl command stand in build/fuzz-api.
set -euo pipefail
cd "$(dirname "$0")/.."

SCHEMATHESIS=4.1.4 HYPOTHESIS=6.138.2 # it does not work with later ones
fuzz=$PWD/build/schemathesis max=${MAX:-10} seed=${SEED:-1}
tarn=${TARN:-$PWD/build/tarn}
if [ "$(cat "$fuzz/version" 2>/dev/null)" != "$SCHEMATHESIS" ]; then
  echo "installing schemathesis $SCHEMATHESIS"
  python3 -m venv "$fuzz"
  "$fuzz/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$SCHEMATHESIS" "hypothesis==$HYPOTHESIS"
  printf %s "$SCHEMATHESIS" >"$fuzz/version"
fi

dir=$(mktemp -d /tmp/tarn-fuzz-XXXXXX)
chmod 755 "$dir"
export TARN_DATA=$dir/data XDG_CONFIG_HOME=$dir/config HOME=$dir
unset TARN_HOST TARN_TOKEN TARN_PROFILE DATABRICKS_HOST DATABRICKS_TOKEN
trap '"$tarn" down --data "$dir/data" >/dev/null || true; rm -rf "$dir"' EXIT
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
"$tarn" up --detach --listen "127.0.0.1:$(free)" --gateway-port "$(free)" --api-rate 0 >/dev/null
"$tarn" project create harbour >/dev/null
profile() { python3 -c "import json, sys; p = json.load(open('$dir/config/tarn/profile.json')); print({k.lower(): v for k, v in p.items()}['$1'])"; }
host=$(profile host)

# What this Tarn does not do is answered with 501; any other 5xx is a failure.
cat >"$dir/any.toml" <<'TOML'
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 501]
TOML
cat "$dir/any.toml" - >"$dir/named.toml" <<'TOML'
[parameters]
"path.project" = "harbour"
"path.branch" = "production"
"path.endpoint" = "primary"
"path.database" = "databricks-postgres"
"path.catalog" = "lake"
TOML
mkdir -p build/fuzz-api
bad=0
for round in any named; do
  # What is named stays: deletes are sent in the other round. Neither ends our own token's owner.
  rest=(); [ $round = any ] || rest=(--exclude-method DELETE)
  log=build/fuzz-api/$round.log
  timeout "${LIMIT:-300}" "$fuzz/bin/schemathesis" --config-file "$dir/$round.toml" run "$host/api/docs/openapi.json" -H "Authorization: Bearer $(profile token)" \
    --checks not_a_server_error,status_code_conformance,response_schema_conformance,content_type_conformance \
    --phases "${PHASES:-fuzzing}" --max-examples "$max" --seed "$seed" --workers 2 --continue-on-failure --no-shrink --request-timeout 60 \
    --warnings off --suppress-health-check all "${rest[@]}" >"$log" 2>&1 || bad=1
  sed -n '/Test cases:/,/Seed:/p; /= SUMMARY/,$p' "$log" | awk '!seen[$0]++' | sed "s/^/$round: /"
done
"$tarn" status >/dev/null || { echo "fuzz-api: Tarn does not answer any more" >&2; bad=1; }
[ $bad = 0 ] || { echo "fuzz-api: see build/fuzz-api/*.log" >&2; cp "$dir/data/log/tarn.log" build/fuzz-api/ || true; exit 1; }
