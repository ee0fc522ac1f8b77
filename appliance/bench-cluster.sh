#!/bin/bash
# Figures of clusters on this machine beside one box, by turns in one run: three processes with RS(2,1), then five with
# RS(3,2) and three voters. What each process cost for it, and reads while one node is dead. Plain HTTP.
#   DURATION=10s OBJECTS=5000 S3D=bin/s3d DIR=/path/on/the/disk/to/measure appliance/bench-cluster.sh
# CLUSTERS=five: only those. PERF=DIR: `perf record` of the whole machine while the cluster alone works, a file each.
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

bench() { "$s3d" bench --endpoint "http://127.0.0.1:$((base + 1))" --duration "$duration" "$@"; }

# Processor time of each process so far: its name, and ticks.
ticks() {
    for id in "${!pids[@]}"; do
        awk -v name="${names[id]}" '{ print name, $14 + $15 }' "/proc/${pids[id]}/stat"
    done
}

# The most memory that each ever had resident.
memory() {
    for id in "${!pids[@]}"; do
        awk -v name="${names[id]}" '/^VmHWM/ { printf "  %-8s %4d MiB resident at most\n", name, $2 / 1024 }' \
            "/proc/${pids[id]}/status"
    done
}

# One operation: its figures, and what it cost each process, by GB where objects are large and else by 1,000 operations.
measured() { # title, arguments of bench
    echo "--- $1"
    ticks >"$dir/before"
    bench "${@:2}" --keep --prepared --json >"$dir/figures"
    ticks >"$dir/after"
    awk -v tick="$(getconf CLK_TCK)" -f "$dir/figures.awk" "$dir/before" "$dir/after" "$dir/figures"
}

cat >"$dir/figures.awk" <<'END'
FILENAME ~ /before$/ { before[$1] = $2; names[++name_count] = $1; next }
FILENAME ~ /after$/ { spent[$1] = ($2 - before[$1]) / tick; next }
{ gsub(/[",:]/, ""); value[$1] = $2 }
# The end of what is said of an endpoint: the cluster, and then perhaps the single box.
$1 == "}" && "p50_us" in value {
    site = ++site_count == 1 ? "cluster" : "single"
    count[site] = value["count"]
    bytes[site] = value["bytes_per_s"] * value["elapsed_s"]
    rate[site] = value["ops_per_s"]
    printf "%-8s %8.1f/s %8.1f MB/s   p50 %8.2f ms   p99 %8.2f ms   %d errors\n", site, rate[site],
        value["bytes_per_s"] / 1e6, value["p50_us"] / 1e3, value["p99_us"] / 1e3, value["errors"]
    delete value["p50_us"]
}
END {
    if (site_count == 2) printf "%-8s %8.2f\n", "ratio", rate["cluster"] / rate["single"]
    for (n = 1; n <= name_count; n++) {
        site = names[n] == "single" ? "single" : "cluster"
        if (!count[site]) continue
        if (bytes[site] / count[site] < 1e6)
            printf "  %-8s %8.3f CPU s per 1,000\n", names[n], 1000 * spent[names[n]] / count[site]
        else
            printf "  %-8s %8.2f CPU s per GB\n", names[n], spent[names[n]] / (bytes[site] / 1e9)
    }
}
END

# The same, with a profile of the machine where one is wanted.
profiled() { # name, title, arguments of bench
    if [ -z "${PERF:-}" ]; then
        measured "${@:2}"
    else
        perf record -q -F 199 -g -a -o "$PERF/$1.data" -- sleep "${duration%s}" &
        measured "${@:2}"
        wait $!
    fi
}

measure() { # name, nodes, voters, data, parity
    echo "=== $1: $2 processes, $3 voters, rs($4,$5); beside one box"
    pids=() names=()
    configure "$@"
    start_cluster "$@"
    for id in "${!pids[@]}"; do names[id]=box-$id; done
    "$s3d" -data-dir "$dir/$1/single" -port "$base" -admin-port 0 -tls off -log-level warn &
    pids[0]=$! names[0]=single
    serving "$base" "${pids[0]}"
    # Both at once would blur a profile.
    local versus=(--vs "http://127.0.0.1:$base")
    [ -z "${PERF:-}" ] || versus=()
    local small=(--bucket small --size 4KiB --concurrency 64 --objects "$objects")
    local large=(--bucket large --size 64MiB --objects 8)
    # What is read is made before, and nothing is deleted meanwhile: neither is to count.
    bench "${versus[@]}" "${small[@]}" --ops head --keep >/dev/null
    bench "${versus[@]}" "${large[@]}" --concurrency 4 --ops head --keep >/dev/null
    for op in put get; do
        profiled "$1-$op-small" "$op of 4 KiB, 64 clients" "${versus[@]}" "${small[@]}" --ops $op
        profiled "$1-$op-large" "$op of 64 MiB, 4 clients" "${versus[@]}" "${large[@]}" --concurrency 4 --ops $op
    done
    for clients in 16 4; do
        profiled "$1-range-$clients" "8 KiB at random, $clients clients" "${versus[@]}" "${large[@]}" \
            --concurrency $clients --ops range
    done
    memory
    kill -9 "${pids[$2]}"
    wait "${pids[$2]}" 2>/dev/null || true
    unset "pids[$2]"
    sleep 3
    measured "get of 64 MiB, 4 clients, the last node dead" "${large[@]}" --concurrency 4 --ops get
    measured "8 KiB at random, 4 clients, the last node dead" "${large[@]}" --concurrency 4 --ops range
    kill "${pids[@]}"
    wait
    rm -rf "${dir:?}/$1"
}

for cluster in ${CLUSTERS:-three five}; do
    case $cluster in
        three) measure three 3 3 2 1 ;;
        five) measure five 5 3 3 2 ;;
    esac
done
