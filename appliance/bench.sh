#!/bin/bash
# Figures of one box on this machine: a fresh store, plain HTTP and then TLS, small and large objects.
#   DURATION=10s OBJECTS=10000 DIR=/path/on/the/disk/to/measure appliance/bench.sh [more arguments of s3d bench]
set -euo pipefail
s3d=$(realpath "$(dirname "$0")/../bin/s3d")
dir=$(mktemp -d "${DIR:-$PWD}/bench-data.XXXXXX")
port=${PORT:-18443}
unset PORT
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT

start() { # tls on|off
    "$s3d" -data-dir "$dir/data" -port "$port" -admin-port 0 -tls "$1" -log-level warn &
    pid=$!
    until [ -s "$dir/data/keys/credentials.json" ] && { [ "$1" = off ] || [ -s "$dir/data/keys/ca.pem" ]; } &&
        (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        kill -0 "$pid" 2>/dev/null || { echo "s3d did not start" >&2; exit 1; }
        sleep 0.05
    done
    eval "$("$s3d" credentials --env -data-dir "$dir/data" -port "$port" -tls "$1")"
}

stop() {
    kill "$pid"
    wait "$pid" || true
    pid=
    unset AWS_CA_BUNDLE
}

for tls in off on; do
    start "$tls"
    "$s3d" bench --size 4KiB --concurrency 64 --duration "${DURATION:-10s}" --objects "${OBJECTS:-10000}" "$@"
    "$s3d" bench --size 64MiB --concurrency 4 --duration "${DURATION:-10s}" --objects 16 --ops put,get "$@"
    stop
done
