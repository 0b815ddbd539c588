#!/bin/busybox sh
# The first and only process of a test machine. Owns the order: file systems, modules, tests, power off. Assumes what
# `vm/image.rs` put beside it: /vm/modules (in the order to load) and /vm/plan (a line `directory binary arguments` per
# test binary). Refuses nothing and judges nothing: what it prints on the second serial line, the host judges. The kernel's
# messages and what tests write to their standard error go to the first one.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp RUST_BACKTRACE=1
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /root
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec </dev/null >/dev/ttyS1 2>/dev/ttyS0
echo "vm: kernel $(uname -r)"
while read -r module; do
    insmod "/vm/modules.d/$module" || echo "vm: module $module does not load"
done </vm/modules
ip link set lo up
number=0
while read -r directory binary arguments; do
    echo "vm: begin $number"
    cd "$directory"
    # shellcheck disable=SC2086 # arguments are words
    CARGO_MANIFEST_DIR=$directory "$binary" $arguments </dev/null
    echo "vm: end $number $?"
    number=$((number + 1))
done </vm/plan
echo "vm: done"
sync
poweroff -f
