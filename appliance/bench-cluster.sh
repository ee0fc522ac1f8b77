#!/bin/bash
# Figures of clusters on this machine beside one box, by turns in one run: three processes with RS(2,1), then five with
# RS(3,2) and three voters. Then what the processes cost, and reads while one node is dead. Plain HTTP.
#   DURATION=10s OBJECTS=5000 S3D=bin/s3d DIR=/path/on/the/disk/to/measure appliance/bench-cluster.sh
set -euo pipefail
s3d=$(realpath "${S3D:-$(dirname "$0")/../bin/s3d}")
dir=$(mktemp -d "${DIR:-$PWD}/bench-data.XXXXXX")
duration=${DURATION:-10s}
objects=${OBJECTS:-5000}
base=${PORT:-18600}
unset PORT
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$dir"' EXIT

export AWS_ACCESS_KEY_ID=AKIABENCHBENCHBENCH1 AWS_SECRET_ACCESS_KEY=bench-bench-bench-bench-bench-bench-0001
export PREDASTORE_AUTH_ACCESS_KEY=$AWS_ACCESS_KEY_ID PREDASTORE_AUTH_SECRET_KEY=$AWS_SECRET_ACCESS_KEY
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$dir/secret"
chmod 600 "$dir/secret"

serving() { # port pid
    until (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
        kill -0 "$2" 2>/dev/null || { echo "s3d did not start" >&2; exit 1; }
        sleep 0.05
    done
}

configure() { # name, nodes, voters, data, parity
    {
        printf '[cluster]\nsecret_file = "%s"\n[rs]\ndata = %d\nparity = %d\n' "$dir/secret" "$4" "$5"
        for ((id = 1; id <= $3; id++)); do
            printf '[[db]]\nid = %d\nhost = "127.0.0.1"\nport = %d\npath = "%s"\n' $id $((base + 20 + id)) "$dir/$1/db-$id"
        done
        for ((id = 1; id <= $2; id++)); do
            printf '[[nodes]]\nid = %d\nhost = "127.0.0.1"\nport = %d\npath = "%s"\n' $id $((base + 30 + id)) "$dir/$1/node-$id"
        done
    } >"$dir/$1.toml"
}

start_cluster() { # name, nodes, voters
    for ((id = 1; id <= $2; id++)); do
        "$s3d" -backend distributed -config "$dir/$1.toml" -node $id $( ((id > $3)) || echo -db-node $id) \
            -port $((base + id)) -admin-port 0 -tls off -data-dir "$dir/$1/$id" -log-level warn &
        pids[id]=$!
    done
    for ((id = 1; id <= $2; id++)); do serving $((base + id)) "${pids[id]}"; done
    until "$s3d" cluster status -config "$dir/$1.toml" >"$dir/status"; do sleep 0.5; done
}

# Processor seconds, and the most memory ever resident, of each process.
costs() {
    for id in "${!pids[@]}"; do
        awk -v name="${names[id]}" -v tick="$(getconf CLK_TCK)" \
            'FNR == NR { cpu = ($14 + $15) / tick; next } /^VmHWM/ { printf "%-12s %8.1f CPU s so far, %4d MiB at most\n", name, cpu, $2 / 1024 }' \
            "/proc/${pids[id]}/stat" "/proc/${pids[id]}/status"
    done
}

bench() { "$s3d" bench --endpoint "http://127.0.0.1:$((base + 1))" --duration "$duration" "$@"; }

measure() { # name, nodes, voters, data, parity
    echo "=== $1: $2 processes, $3 voters, rs($4,$5); beside one box"
    pids=() names=()
    configure "$@"
    start_cluster "$@"
    for id in "${!pids[@]}"; do names[id]="box $id"; done
    "$s3d" -data-dir "$dir/$1/single" -port "$base" -admin-port 0 -tls off -log-level warn &
    pids[0]=$! names[0]=single
    serving "$base" "${pids[0]}"
    local versus=(--vs "http://127.0.0.1:$base")
    costs
    bench "${versus[@]}" --size 4KiB --concurrency 64 --objects "$objects" --ops put,get
    costs
    bench "${versus[@]}" --size 64MiB --concurrency 4 --objects 8 --ops put,get --keep
    costs
    bench "${versus[@]}" --size 64MiB --concurrency 16 --objects 8 --ops range --keep --prepared
    echo "--- GET of 64 MiB with all nodes, and with the last one dead"
    bench --size 64MiB --concurrency 4 --objects 8 --ops get,range --keep --prepared
    kill -9 "${pids[$2]}"
    wait "${pids[$2]}" 2>/dev/null || true
    unset "pids[$2]"
    sleep 3
    bench --size 64MiB --concurrency 4 --objects 8 --ops get,range --keep --prepared
    costs
    kill "${pids[@]}"
    wait
    rm -rf "${dir:?}/$1"
}

measure three 3 3 2 1
measure five 5 3 3 2
