#!/bin/bash
# Figures of a mounted bucket on this machine, beside a directory on the same disk, and beside s3fs and rclone mount of the same
# bucket, by turns in one run; as root. With CLUSTER=1 the bucket is one of three processes with RS(2,1). Plain HTTP.
#   SECONDS_EACH=5 MIB=512 FILES=10000 ENTRIES=100000 LIMIT=300 SYSTEMS="disk predastore s3fs rclone" \
#       S3D=bin/s3d DIR=/path/on/the/disk/to/measure appliance/bench-fuse.sh
set -euo pipefail
here=$(dirname "$0")
s3d=$(realpath "${S3D:-$here/../bin/s3d}")
systems=${SYSTEMS:-disk predastore s3fs rclone}
dir=$(mktemp -d "${DIR:-$PWD}/bench-fuse.XXXXXX")
base=${PORT:-18700}
unset PORT

# Mounts are seen here alone, and go with this script.
if [ -z "${BENCH_FUSE_PRIVATE:-}" ]; then
    rmdir "$dir"
    BENCH_FUSE_PRIVATE=1 exec unshare -m --propagation private "$0" "$@"
fi

finish() {
    "$s3d" umount --force "$dir/predastore" 2>/dev/null || true
    for system in predastore s3fs rclone; do umount -l "$dir/$system" 2>/dev/null || true; done
    # shellcheck disable=SC2046
    kill $(jobs -p) 2>/dev/null || true
    wait
    rm -rf --one-file-system "$dir"
}
trap finish EXIT

export AWS_ACCESS_KEY_ID=AKIABENCHBENCHBENCH1 AWS_SECRET_ACCESS_KEY=bench-bench-bench-bench-bench-bench-0001
export PREDASTORE_AUTH_ACCESS_KEY=$AWS_ACCESS_KEY_ID PREDASTORE_AUTH_SECRET_KEY=$AWS_SECRET_ACCESS_KEY
url=http://127.0.0.1:$((base + 1))

serving() { # port pid
    until (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
        kill -0 "$2" 2>/dev/null || { echo "s3d did not start" >&2; exit 1; }
        sleep 0.05
    done
}

start_box() {
    "$s3d" -port $((base + 1)) -admin-port 0 -tls off -data-dir "$dir/data-1" -log-level warn &
    serving $((base + 1)) $!
}

start_cluster() {
    head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$dir/secret"
    chmod 600 "$dir/secret"
    {
        printf '[cluster]\nsecret_file = "%s"\n[rs]\ndata = 2\nparity = 1\n' "$dir/secret"
        for id in 1 2 3; do
            printf '[[db]]\nid = %d\nhost = "127.0.0.1"\nport = %d\npath = "%s"\n' $id $((base + 20 + id)) "$dir/db-$id"
            printf '[[nodes]]\nid = %d\nhost = "127.0.0.1"\nport = %d\npath = "%s"\n' $id $((base + 30 + id)) "$dir/node-$id"
        done
    } >"$dir/cluster.toml"
    for id in 1 2 3; do
        "$s3d" -backend distributed -config "$dir/cluster.toml" -node $id -db-node $id \
            -port $((base + id)) -admin-port 0 -tls off -data-dir "$dir/data-$id" -log-level warn &
        serving $((base + id)) $!
    done
    until "$s3d" cluster status -config "$dir/cluster.toml" >"$dir/status"; do sleep 0.5; done
}

mount_one() { # system
    mkdir -p "$dir/$1"
    case $1 in
        disk) ;;
        predastore) "$s3d" mount bench "$dir/predastore" -o allow_other -data-dir "$dir/data-1" ;;
        s3fs)
            (umask 077; echo "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" >"$dir/passwd-s3fs")
            s3fs bench "$dir/s3fs" -o "url=$url,use_path_request_style,passwd_file=$dir/passwd-s3fs"
            ;;
        rclone)
            # The least cache with which files can be written in the middle; what is closed leaves it.
            env -u AWS_CA_BUNDLE RCLONE_CONFIG_PD_TYPE=s3 RCLONE_CONFIG_PD_PROVIDER=Other RCLONE_CONFIG_PD_ENDPOINT=$url \
                RCLONE_CONFIG_PD_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID RCLONE_CONFIG_PD_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY \
                rclone mount pd:bench "$dir/rclone" --config /dev/null --cache-dir "$dir/rclone-cache" --daemon \
                --vfs-cache-mode writes --vfs-cache-max-age 1s --vfs-cache-poll-interval 1s --vfs-write-back 0
            ;;
    esac
}

if [ -n "${CLUSTER:-}" ]; then
    shape="three processes with rs(2,1)"
    start_cluster
else
    shape="one box"
    start_box
fi
curl -sSf -o /dev/null -X PUT -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" --aws-sigv4 "aws:amz:us-east-1:s3" \
    --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" "$url/bench"
for system in $systems; do mount_one "$system"; done
echo "the disk: $(stat -f -c %T "$dir"), $(nproc) processors, $shape"
# shellcheck disable=SC2086
python3 "$here/bench-fuse.py" "$dir" $systems
