#!/bin/busybox sh
# The first process of a test machine. Owns the order: file systems, modules, tests one by one, power off. Assumes what
# `vm/image.rs` put beside it: /vm/modules (in the order to load) and /vm/plan (a line `directory binary arguments` per
# test), and BULKHEAD_TEST_SECONDS on the kernel's command line: a test that takes longer is ended, with whatever it started. Refuses
# nothing and judges nothing: what it prints on the second serial line, the host judges. The kernel's messages and what tests write
# to their standard error go to the first one.
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
    read -r began _ </proc/uptime
    echo "vm: begin $number ${began%.*}"
    cd "$directory"
    # shellcheck disable=SC2086 # arguments are words
    CARGO_MANIFEST_DIR=$directory timeout -s KILL "$BULKHEAD_TEST_SECONDS" "$binary" $arguments </dev/null
    status=$?
    read -r ended _ </proc/uptime
    # Killed, it has cleaned up nothing. The next test is to find the machine as this one did.
    if [ "$status" = 137 ]; then
        kill -KILL -1
        for namespace in /run/netns/*; do
            ip netns delete "${namespace##*/}"
        done
    fi
    # A line of its own: what was ended may have stopped in the middle of one.
    echo
    echo "vm: end $number $status ${ended%.*}"
    number=$((number + 1))
done </vm/plan
echo "vm: done"
sync
poweroff -f
