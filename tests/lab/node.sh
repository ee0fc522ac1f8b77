#!/bin/bash
# Boots a machine under systemd-nspawn and prints the id of its first process.
# usage: node.sh NAME ROOT WORK ADDRESS     ROOT: a Debian root, left as it is; WORK: what the machine changes, and its console
# Machines of one LAB (an environment variable) are on one network, 10.77.0.0/24, in the network namespace $LAB.
set -euo pipefail
name=$1 base=$2 work=$3 address=$4

mkdir -p "$work"/{upper,work,root}
mountpoint -q "$work/root" ||
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/work" "$work/root"
# Else the host's /dev/fuse, which is bound below, gets another mode.
mkdir -p "$work/root/etc/tmpfiles.d"
ln -sfn /dev/null "$work/root/etc/tmpfiles.d/static-nodes-permissions.conf"
echo "$name" > "$work/root/etc/hostname"

if ! ip netns list | grep -q "^$LAB\b"; then
    ip netns add "$LAB"
    ip -n "$LAB" link add bridge type bridge
    ip -n "$LAB" addr add 10.77.0.1/24 dev bridge
    ip -n "$LAB" link set bridge up
    ip -n "$LAB" link set lo up
fi
if ! ip netns list | grep -q "^$LAB-$name\b"; then
    ip netns add "$LAB-$name"
    ip -n "$LAB" link add "to-$name" type veth peer name host0 netns "$LAB-$name"
    ip -n "$LAB" link set "to-$name" master bridge up
    ip -n "$LAB-$name" addr add "$address/24" dev host0
    ip -n "$LAB-$name" link set host0 up
    ip -n "$LAB-$name" link set lo up
fi

# A view of cgroup2 of its own, which systemd insists on.
cgroup=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)/$LAB-$name
mkdir -p "$cgroup"
inside="echo \$\$ > $cgroup/cgroup.procs
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec systemd-nspawn --quiet --boot -D $work/root -M $name --register=no --keep-unit \
    --network-namespace-path=/run/netns/$LAB-$name --console=pipe --link-journal=no --resolv-conf=off \
    --bind=/dev/fuse --bind=/dev/autofs"
setsid unshare -m --propagation private bash -c "$inside" > "$work/console" 2>&1 < /dev/null &

for _ in $(seq 600); do
    pid=$(find "$cgroup" -path '*init.scope/cgroup.procs' -exec head -n 1 {} \; 2>/dev/null | head -n 1)
    state=$([ -z "$pid" ] || nsenter -t "$pid" -a systemctl is-system-running 2>/dev/null || true)
    case $state in running | degraded) echo "$pid" && exit 0 ;; esac
    sleep 0.1
done
tail -n 20 "$work/console" >&2
exit 1
