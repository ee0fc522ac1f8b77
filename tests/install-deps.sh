#!/bin/sh
# Installs what the end-to-end suites need and is not there yet: Debian packages (as root), a virtual environment with the
# AWS CLI and boto3, and two testers of file systems built by cargo. Idempotent, and quick when all is there.
# usage: tests/install-deps.sh [TARGET_DIR]     (default: $CARGO_TARGET_DIR, else target beside the workspace)
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${1:-${CARGO_TARGET_DIR:-$here/../target}}
venv=${PREDASTORE_TEST_VENV:-$target/test-venv}
tools=${PREDASTORE_TEST_TOOLS:-$target/test-tools}

missing=
need() { # program package
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"
}
need strace strace
need mkfs.ext4 e2fsprogs
need mkfs.xfs xfsprogs
need xfs_io xfsprogs
need curl curl
need ip iproute2
need nft nftables
need faketime faketime
need s3cmd s3cmd
need rclone rclone
need restic restic
need s3fs s3fs
need fusermount fuse3
need python3 python3
need fio fio
need stress-ng stress-ng
need getfattr attr
need setfacl acl
need rsync rsync
need sqlite3 sqlite3
need inotifywait inotify-tools
need git git
need nats-server nats-server
need vi vim-tiny
need systemd-nspawn systemd-container
need mmdebstrap mmdebstrap
need dh debhelper
need dpkg-buildpackage dpkg-dev
[ -e /usr/include/sys/acl.h ] || missing="$missing libacl1-dev" # pjdfstest is linked with it
python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        # Names may repeat; apt does not mind.
        # shellcheck disable=SC2086
        apt-get install -q -y --no-install-recommends $missing
    else
        echo "*** missing for the end-to-end suites:$missing" >&2
        echo "*** install them (or run this as root); what needs them is skipped, and fails with CI=true" >&2
    fi
fi

# awscrt gives boto3 the checksums that Python has not: CRC32C and CRC64NVME.
wanted='awscli==1.45.11 boto3[crt]==1.43.11'
stamp=$venv/installed
# Its scripts name the place they were installed in: one that was moved is made anew.
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted in $venv" ]; then
    python3 -m venv --clear "$venv"
    # shellcheck disable=SC2086
    "$venv/bin/pip" install -q --disable-pip-version-check $wanted
    echo "$wanted in $venv" >"$stamp"
fi

# Programs, not libraries: nothing of ours is linked with them. In a target directory of their own, which goes: they are built
# once.
wanted='pjdfstest@0.2.2 fsx@0.3.2'
stamp=$tools/installed
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    # shellcheck disable=SC2086
    cargo install --quiet --locked --force --root "$tools" --target-dir "$tools/build" $wanted
    rm -rf "$tools/build"
    echo "$wanted" >"$stamp"
fi
