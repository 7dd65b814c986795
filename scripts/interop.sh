#!/usr/bin/env bash
# Checks Delta tables against Apache Spark, both ways. Installs pyspark from PyPI and
# Delta's jars from Maven Central into build/spark (about 500 MB) the first time; needs
# Java 17 and mvn. A few minutes; no part of make test.
set -euo pipefail
cd "$(dirname "$0")/.."

PYSPARK=4.2.0 DELTA=4.4.0 SPARK_LINE=4.2_2.13
spark=$PWD/build/spark
jar() { echo "$HOME/.m2/repository/io/delta/$1/$DELTA/$1-$DELTA.jar"; }

for tool in java mvn python3; do
  command -v "$tool" >/dev/null || { echo "interop: $tool is missing" >&2; exit 1; }
done
if [ ! -x "$spark/bin/python" ] || [ "$(cat "$spark/pyspark" 2>/dev/null)" != "$PYSPARK" ]; then
  echo "installing pyspark $PYSPARK"
  python3 -m venv "$spark"
  "$spark/bin/pip" install --quiet --disable-pip-version-check "pyspark==$PYSPARK"
  printf %s "$PYSPARK" >"$spark/pyspark"
fi
jars=()
for artifact in "delta-spark_$SPARK_LINE" delta-storage; do
  [ -f "$(jar "$artifact")" ] || mvn -q -B dependency:get -Dartifact="io.delta:$artifact:$DELTA" -Dtransitive=false
  jars+=("$(jar "$artifact")")
done
export TARN_SPARK_PYTHON=$spark/bin/python TARN_SPARK_JARS=$(IFS=,; echo "${jars[*]}")
exec go test -count=1 -timeout 20m -v -run '^TestSpark$' ./internal/delta
