#!/usr/bin/env bash
# json_to_parquet.sh PEERS INPUT OUTPUT RUNS rows|objects: JSON lines to Parquet on Apache Flink, in files of this machine.
# Flink comes from PEERS/flink/setup.sh; parquet-java and the classes of Hadoop that it needs from the Python package pyspark
# (317 MB, kept in $PEERS_DIR). Prints the line that JsonToParquet.java describes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
peers=$1
shift
export PEERS_DIR=${PEERS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/thalweg-peers}
home=$(bash "$peers/flink/setup.sh" | tail -n 1)

jars=$PEERS_DIR/parquet-java
if [ ! -d "$jars" ]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    python3 -m pip download -q --no-deps --no-binary=:all: -d "$scratch" pyspark==3.5.6
    mkdir "$scratch/jars"
    tar xzf "$scratch"/pyspark-*.tar.gz --wildcards --strip-components=3 -C "$scratch/jars" \
        '*/jars/parquet-*' '*/jars/hadoop-client-*' '*/jars/snappy-java-*' '*/jars/jackson-core-2*' \
        '*/jars/jackson-databind-*' '*/jars/jackson-annotations-*' '*/jars/commons-pool-*' '*/jars/commons-logging-*'
    mv "$scratch/jars" "$jars"
fi

class_path=$(printf '%s:' "$home"/lib/*.jar "$jars"/*.jar)
classes=$(mktemp -d)
trap 'rm -rf "${scratch:-}" "$classes"' EXIT
javac -nowarn -d "$classes" -cp "$class_path" "$here/JsonToParquet.java"
# What Flink's own scripts open to it.
opens=$(grep -vE '^\s*#' "$home/conf/config.yaml" | sed -n 's/^ *all: //p' | head -n 1)
# shellcheck disable=SC2086
java -Xms2g -Xmx2g -XX:MaxDirectMemorySize=1g $opens -Dlog4j.configurationFile="$peers/flink/log4j2.properties" \
    -cp "$classes:$class_path" JsonToParquet "$@" </dev/null
