#!/bin/bash
# Three boxes on this machine, with RS(2,1) and three voters: for development. Ctrl-C ends them; a next start goes on with
# their data.
#   appliance/cluster.sh [DIRECTORY]
set -euo pipefail
s3d=$(realpath "$(dirname "$0")/../bin/s3d")
dir=$(realpath -m "${1:-boxes}")
mkdir -p "$dir"
[ -s "$dir/secret" ] || (umask 077; head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$dir/secret")
{
    printf '[cluster]\nsecret_file = "%s"\n[rs]\ndata = 2\nparity = 1\n' "$dir/secret"
    for box in 1 2 3; do
        printf '[[db]]\nid = %d\nhost = "127.0.0.1"\nport = 666%d\npath = "%s"\n' $box $box "$dir/db-$box"
        printf '[[nodes]]\nid = %d\nhost = "127.0.0.1"\nport = 999%d\npath = "%s"\n' $box $box "$dir/node-$box"
    done
} >"$dir/cluster.toml"

arguments() { # box
    echo -backend distributed -config "$dir/cluster.toml" -node "$1" -db-node "$1" \
        -port "844$1" -admin-port "944$1" -data-dir "$dir/$1"
}

trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
trap 'exit 0' INT TERM
for box in 1 2 3; do
    # shellcheck disable=SC2046
    "$s3d" $(arguments $box) >>"$dir/$box.log" 2>&1 &
done
cat <<END

Three boxes serve https://localhost:8441, :8442 and :8443, with their data and logs in $dir; Ctrl-C ends them. In another
shell, here:

  eval "\$(bin/s3d credentials --env $(arguments 1))"
  aws s3 mb s3://first
  aws --endpoint-url https://localhost:8442 s3 cp README.md s3://first/
  aws --endpoint-url https://localhost:8443 s3 ls s3://first

END
wait -n || true
echo "a box has ended: see its log in $dir" >&2
exit 1
