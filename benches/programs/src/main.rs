//! The BPF programs of the network benchmark: the packet source, the sink, and the bare redirects that show what a
//! hook costs with nothing in it.
//!
//! | program | hook | does |
//! |---|---|---|
//! | `bench_source` | test run, live frames | writes a complete header for the next flow and redirects |
//! | `bench_sink_xdp` | XDP | counts and drops measured packets, or sends them back |
//! | `bench_sink_tcx` | TCX ingress | the same, for packets that `bpf_redirect_peer` put behind XDP |
//! | `bench_return_xdp` | XDP | counts and drops what the sink sent back, at the source |
//! | `bench_return_tcx` | TCX ingress | the same behind XDP |
//! | `bench_drop` | XDP | drops everything: the source alone |
//! | `bench_bare_xdp` | XDP | MAC addresses, TTL, `bpf_redirect` |
//! | `bench_bare_xdp_fib` | XDP | the same, asking the kernel's routing table for the way |
//! | `bench_bare_xdp_lookup` | XDP | the same as `bench_bare_xdp` after one lookup in a table |
//! | `bench_bare_tcx` | TCX ingress | the same |
//! | `bench_bare_tcx_peer` | TCX ingress | the same with `bpf_redirect_peer` |
//! | `bench_empty_xdp`, `bench_empty_tcx` | test run | nothing: what a test run's clock adds |
//!
//! What never changes is a global that the loader fills in, so that the verifier sees constants; what changes from round
//! to round (flows, targets, sizes) is in arrays, whose lookup the JIT inlines.
#![no_std]
#![no_main]

use aya_ebpf::{
    Global,
    bindings::{
        BPF_FIB_LOOKUP_DIRECT, TC_ACT_OK, TC_ACT_SHOT, bpf_fib_lookup,
        xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS},
    },
    helpers::generated::{
        bpf_fib_lookup as bpf_fib_lookup_helper, bpf_redirect, bpf_redirect_peer, bpf_xdp_adjust_tail,
    },
    macros::{classifier, map, xdp},
    maps::{Array, HashMap, PerCpuArray},
    programs::{TcContext, XdpContext},
};

/// Bytes of the smallest frame: 14 Ethernet, 20 IPv4, 8 UDP, 18 payload.
const FRAME_BYTES: usize = 60;
/// Bytes that every run rewrites: the headers (42) and the first of the payload.
const REWRITTEN_BYTES: usize = 48;
/// Bytes up to the end of the UDP header.
const HEADERS_BYTES: usize = 42;
/// Shapes at most: the slots of the size mix.
const SHAPES: u32 = 12;
/// Draws in one value of `SOURCE_ORDER`.
const CHUNK: u32 = 1_024;
/// `BPF_F_NO_PREALLOC`: entries as a session table has them.
const NO_PREALLOC: u32 = 1;

/// Interface the source sends out of.
#[unsafe(no_mangle)]
static SOURCE_IFINDEX: Global<u32> = Global::new(0);
/// The first 48 bytes of a frame with addresses, lengths, source port and checksums zero, as they lie in memory.
#[unsafe(no_mangle)]
static SOURCE_FRAME: Global<[u64; REWRITTEN_BYTES / 8]> = Global::new([0; REWRITTEN_BYTES / 8]);
/// The first source port, host byte order.
#[unsafe(no_mangle)]
static SOURCE_FIRST_PORT: Global<u32> = Global::new(0);
/// The first source address, host byte order.
#[unsafe(no_mangle)]
static SOURCE_FIRST_ADDRESS: Global<u32> = Global::new(0);
/// The destination address of target 0, host byte order.
#[unsafe(no_mangle)]
static SOURCE_FIRST_TARGET: Global<u32> = Global::new(0);
/// Source ports per source address, as a power of two.
const PORT_BITS: u32 = 14;

/// Destination port of measured packets, host byte order.
#[unsafe(no_mangle)]
static SINK_PORT: Global<u32> = Global::new(0);

/// Interface the bare redirects send out of.
#[unsafe(no_mangle)]
static BARE_IFINDEX: Global<u32> = Global::new(0);
/// Destination and source MAC addresses they write, as they lie in memory.
#[unsafe(no_mangle)]
static BARE_MACS: Global<[u32; 3]> = Global::new([0; 3]);

/// What the source sends: flows, targets, the first target's number, shapes, how far it is from a target to the next, and
/// how many draws there are; 0: flows are taken in turn.
#[map]
static SOURCE_TRAFFIC: Array<[u32; 6]> = Array::with_max_entries(1, 0);
/// The shapes it takes in turn: bytes; IPv4 total length and UDP length in network byte order, as one word; sums of the
/// IPv4 header and of pseudo header and segment, unfolded, in memory's byte order, without what the flow decides.
#[map]
static SOURCE_SHAPES: Array<[u32; 4]> = Array::with_max_entries(SHAPES, 0);
/// The flows that were drawn, one after the other.
#[map]
static SOURCE_ORDER: Array<[u32; CHUNK as usize]> = Array::with_max_entries(1, 0);
/// The source's next flow (or draw), target and shape.
#[map]
static SOURCE_NEXT: PerCpuArray<[u32; 3]> = PerCpuArray::with_max_entries(1, 0);
/// What the sink does with measured packets; see `SINK_*`.
#[map]
static SINK_MODE: Array<u32> = Array::with_max_entries(1, 0);
/// A table of tuples like a session table: as many entries, keys and values of the same size.
#[map]
static BARE_TABLE: HashMap<[u64; 2], [u64; 22]> = HashMap::with_max_entries(1, NO_PREALLOC);
/// Packets counted: at the sink in XDP and in TCX, back at the source in XDP and in TCX.
#[map]
static SINK_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(4, 0);

/// `AF_INET` (include/linux/socket.h).
const AF_INET: u8 = 2;

/// Sink: count and drop at the first hook.
const SINK_COUNT: u32 = 1;
/// Sink: let pass XDP, so that packet sockets see the frame, then drop.
const SINK_SAMPLE: u32 = 2;
/// Sink: count and send back at the first hook.
const SINK_REFLECT: u32 = 3;

/// Where the frame begins, if it has at least `bytes` bytes.
#[inline(always)]
fn frame(data: usize, data_end: usize, bytes: usize) -> Option<*mut u8> {
    (data + bytes <= data_end).then_some(data as *mut u8)
}

/// Folds a one's-complement sum.
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The two halves of a word in memory, added.
#[inline(always)]
const fn halves(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}

/// The number after `number` of `count`, which may be zero.
#[inline(always)]
const fn turn(number: u32, count: u32) -> u32 {
    if number + 1 >= count { 0 } else { number + 1 }
}

/// The number a stride after `number`, around `count`.
#[inline(always)]
const fn step(number: u32, stride: u32, count: u32) -> u32 {
    let next = number + stride;
    if next >= count { next - count } else { next }
}

/// The packet source. A recycled frame comes back as the firewall left it, so the whole header is written anew.
#[xdp]
pub fn bench_source(ctx: XdpContext) -> u32 {
    let (Some(traffic), Some(next)) = (SOURCE_TRAFFIC.get(0), SOURCE_NEXT.get_ptr_mut(0)) else {
        return XDP_ABORTED;
    };
    let [flows, targets, first_target, shapes, stride, draws] = *traffic;
    // SAFETY: a per-CPU entry, and a test run holds its CPU while it runs a batch.
    let [turned, target, slot] = unsafe {
        let now = *next;
        let flow = turn(now[0], if draws == 0 { flows } else { draws });
        // Begins anew with the flows, so that a flow always has the same target.
        (*next)[0] = flow;
        (*next)[1] = if flow == 0 {
            0
        } else {
            step(now[1], stride, targets)
        };
        (*next)[2] = turn(now[2], shapes);
        now
    };
    let flow = if draws == 0 {
        turned
    } else {
        let Some(chunk) = SOURCE_ORDER.get(turned / CHUNK) else {
            return XDP_ABORTED;
        };
        chunk[(turned % CHUNK) as usize]
    };
    let Some(shape) = SOURCE_SHAPES.get(slot) else {
        return XDP_ABORTED;
    };
    let [bytes, lengths, ip_sum, segment_sum] = *shape;
    // Frames begin as long as the longest shape.
    let surplus = ctx.data_end() as i32 - ctx.data() as i32 - bytes as i32;
    if surplus > 0 {
        // SAFETY: the context is the program's own; pointers into the packet are taken afterwards.
        if unsafe { bpf_xdp_adjust_tail(ctx.ctx, -surplus) } != 0 {
            return XDP_ABORTED;
        }
    }
    let Some(packet) = frame(ctx.data(), ctx.data_end(), FRAME_BYTES) else {
        return XDP_ABORTED;
    };
    let source = (SOURCE_FIRST_ADDRESS.load() + (flow >> PORT_BITS)).to_be();
    let destination = (SOURCE_FIRST_TARGET.load() + first_target + target).to_be();
    let port = ((SOURCE_FIRST_PORT.load() + (flow & ((1 << PORT_BITS) - 1))) as u16).to_be();
    let addresses = halves(source) + halves(destination);
    let ip_checksum = !fold(ip_sum + addresses);
    let checksum = match !fold(segment_sum + addresses + u32::from(port)) {
        0 => 0xffff,
        checksum => checksum,
    };
    let words = SOURCE_FRAME.load();
    // SAFETY: FRAME_BYTES were checked. The frames of a test run begin at a multiple of eight (page head and headroom
    // are), which the header's words need; the processors this runs on do not mind four-byte stores at even addresses.
    unsafe {
        let at: *mut u64 = packet.cast();
        at.write(words[0]);
        at.add(1).write(words[1]);
        at.add(2).write(words[2]);
        at.add(3).write(words[3]);
        at.add(4).write(words[4]);
        at.add(5).write(words[5]);
        packet.add(16).cast::<u16>().write(lengths as u16);
        packet.add(24).cast::<u16>().write(ip_checksum);
        packet.add(26).cast::<u32>().write(source);
        packet.add(30).cast::<u32>().write(destination);
        packet.add(34).cast::<u16>().write(port);
        packet.add(38).cast::<u16>().write((lengths >> 16) as u16);
        packet.add(40).cast::<u16>().write(checksum);
        bpf_redirect(SOURCE_IFINDEX.load(), 0) as u32
    }
}

/// Turns a packet round: what went from here to there goes from there to here. Sums do not notice.
#[inline(always)]
fn reflect(data: usize, data_end: usize) -> bool {
    let Some(packet) = frame(data, data_end, HEADERS_BYTES) else {
        return false;
    };
    // SAFETY: HEADERS_BYTES were checked; for the alignment see `forward`.
    unsafe {
        let (to, from) = (packet.cast::<[u8; 6]>(), packet.add(6).cast::<[u8; 6]>());
        let (a, b) = (to.read(), from.read());
        to.write(b);
        from.write(a);
        let (source, destination) = (packet.add(26).cast::<u32>(), packet.add(30).cast::<u32>());
        let (a, b) = (source.read(), destination.read());
        source.write(b);
        destination.write(a);
        let (source, destination) = (packet.add(34).cast::<u16>(), packet.add(36).cast::<u16>());
        let (a, b) = (source.read(), destination.read());
        source.write(b);
        destination.write(a);
    }
    true
}

/// Whether the packet is one of the source's, or if `back` an answer to it.
#[inline(always)]
fn measured(data: usize, data_end: usize, back: bool) -> bool {
    let Some(packet) = frame(data, data_end, HEADERS_BYTES) else {
        return false;
    };
    let port = if back { 34 } else { 36 };
    // SAFETY: HEADERS_BYTES were checked; the fields lie at even offsets of an even address.
    unsafe {
        packet.add(12).cast::<u16>().read() == 0x0800u16.to_be()
            && packet.add(23).read() == 17
            && packet.add(port).cast::<u16>().read() == (SINK_PORT.load() as u16).to_be()
    }
}

#[inline(always)]
fn count(slot: u32) {
    if let Some(count) = SINK_COUNTS.get_ptr_mut(slot) {
        // SAFETY: a per-CPU entry, and both programs run with bottom halves disabled.
        unsafe { *count += 1 };
    }
}

#[inline(always)]
fn sink_mode() -> u32 {
    SINK_MODE.get(0).copied().unwrap_or(0)
}

/// The sink at its first hook.
#[xdp]
pub fn bench_sink_xdp(ctx: XdpContext) -> u32 {
    let mode = sink_mode();
    if (mode != SINK_COUNT && mode != SINK_REFLECT) || !measured(ctx.data(), ctx.data_end(), false) {
        return XDP_PASS;
    }
    count(0);
    if mode == SINK_REFLECT && reflect(ctx.data(), ctx.data_end()) {
        // Not XDP_TX: `veth_xdp_flush` does not wake a peer that has GRO and no XDP program.
        // SAFETY: the context is the program's own; no preconditions.
        return unsafe { bpf_redirect((*ctx.ctx).ingress_ifindex, 0) as u32 };
    }
    XDP_DROP
}

/// The sink at its second hook.
#[classifier]
pub fn bench_sink_tcx(ctx: TcContext) -> i32 {
    let mode = sink_mode();
    if mode == 0 || !measured(ctx.data(), ctx.data_end(), false) {
        return TC_ACT_OK;
    }
    count(1);
    if mode == SINK_REFLECT && reflect(ctx.data(), ctx.data_end()) {
        // SAFETY: the context is the program's own; no preconditions.
        return unsafe { bpf_redirect((*ctx.skb.skb).ifindex, 0) as i32 };
    }
    TC_ACT_SHOT
}

/// Where answers end.
#[xdp]
pub fn bench_return_xdp(ctx: XdpContext) -> u32 {
    if !measured(ctx.data(), ctx.data_end(), true) {
        return XDP_PASS;
    }
    count(2);
    XDP_DROP
}

/// Where answers end that `bpf_redirect_peer` put behind XDP.
#[classifier]
pub fn bench_return_tcx(ctx: TcContext) -> i32 {
    if !measured(ctx.data(), ctx.data_end(), true) {
        return TC_ACT_OK;
    }
    count(3);
    TC_ACT_SHOT
}

/// Where frames end when the source is measured alone.
#[xdp]
pub fn bench_drop(ctx: XdpContext) -> u32 {
    if !measured(ctx.data(), ctx.data_end(), false) {
        return XDP_PASS;
    }
    count(0);
    XDP_DROP
}

/// What any forwarder must do: new MAC addresses, a shorter life. False for what is not IPv4.
#[inline(always)]
fn forward(data: usize, data_end: usize) -> bool {
    let Some(packet) = frame(data, data_end, HEADERS_BYTES) else {
        return false;
    };
    let macs = BARE_MACS.load();
    // SAFETY: HEADERS_BYTES were checked; on the machines this runs on the kernel aligns frames to two bytes and the
    // processor does not mind four-byte stores there.
    unsafe {
        if packet.add(12).cast::<u16>().read() != 0x0800u16.to_be() || packet.add(22).read() <= 1 {
            return false;
        }
        let at: *mut u32 = packet.cast();
        at.write(macs[0]);
        at.add(1).write(macs[1]);
        at.add(2).write(macs[2]);
        // RFC 1624: one off the TTL is one onto the checksum, at the TTL's place in its word.
        let checksum = packet.add(24).cast::<u16>();
        checksum.write(fold(u32::from(checksum.read()) + u32::from(0x0100u16.to_be())));
        packet.add(22).write(packet.add(22).read() - 1);
    }
    true
}

/// The least an XDP forwarder can do.
#[xdp]
pub fn bench_bare_xdp(ctx: XdpContext) -> u32 {
    if !forward(ctx.data(), ctx.data_end()) {
        return XDP_PASS;
    }
    // SAFETY: no preconditions.
    unsafe { bpf_redirect(BARE_IFINDEX.load(), 0) as u32 }
}

/// The least a stateful XDP forwarder can do: one lookup of the packet's tuple, one count in what was found.
#[xdp]
pub fn bench_bare_xdp_lookup(ctx: XdpContext) -> u32 {
    let (data, data_end) = (ctx.data(), ctx.data_end());
    let Some(packet) = frame(data, data_end, HEADERS_BYTES) else {
        return XDP_PASS;
    };
    // SAFETY: HEADERS_BYTES were checked, and see `forward` for the alignment.
    let key = unsafe {
        let addresses = packet.add(26).cast::<u64>().read_unaligned();
        let ports = packet.add(34).cast::<u32>().read_unaligned();
        [
            addresses,
            u64::from(ports) | u64::from(packet.add(23).read()) << 32,
        ]
    };
    let Some(found) = BARE_TABLE.get_ptr_mut(&key) else {
        return XDP_PASS;
    };
    // SAFETY: the pointer comes from a successful lookup, entries are never removed, and one CPU sends.
    unsafe { (*found)[1] += 1 };
    if !forward(data, data_end) {
        return XDP_PASS;
    }
    // SAFETY: no preconditions.
    unsafe { bpf_redirect(BARE_IFINDEX.load(), 0) as u32 }
}

/// The least an XDP router can do: the kernel knows the way.
#[xdp]
pub fn bench_bare_xdp_fib(ctx: XdpContext) -> u32 {
    let (data, data_end) = (ctx.data(), ctx.data_end());
    let Some(packet) = frame(data, data_end, HEADERS_BYTES) else {
        return XDP_PASS;
    };
    // SAFETY: all-zero is a valid bpf_fib_lookup.
    let mut question: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    question.family = AF_INET;
    question.ifindex = ctx.ingress_ifindex() as u32;
    // SAFETY: HEADERS_BYTES were checked, and see `forward` for the alignment; the question is initialised and of the
    // size given, and its address words are plain integers however they are read.
    unsafe {
        if packet.add(12).cast::<u16>().read() != 0x0800u16.to_be() {
            return XDP_PASS;
        }
        question.l4_protocol = packet.add(23).read();
        question.__bindgen_anon_3.ipv4_src = packet.add(26).cast::<u32>().read();
        question.__bindgen_anon_4.ipv4_dst = packet.add(30).cast::<u32>().read();
        let size = size_of::<bpf_fib_lookup>() as i32;
        if bpf_fib_lookup_helper(ctx.ctx.cast(), &raw mut question, size, BPF_FIB_LOOKUP_DIRECT) != 0 {
            return XDP_PASS;
        }
    }
    let Some(packet) = frame(data, data_end, HEADERS_BYTES) else {
        return XDP_PASS;
    };
    if !forward(data, data_end) {
        return XDP_PASS;
    }
    // SAFETY: as above.
    unsafe {
        packet.cast::<[u8; 6]>().write(question.dmac);
        packet.add(6).cast::<[u8; 6]>().write(question.smac);
        bpf_redirect(question.ifindex, 0) as u32
    }
}

/// The least a TCX forwarder can do.
#[classifier]
pub fn bench_bare_tcx(ctx: TcContext) -> i32 {
    if !forward(ctx.data(), ctx.data_end()) {
        return TC_ACT_OK;
    }
    // SAFETY: no preconditions.
    unsafe { bpf_redirect(BARE_IFINDEX.load(), 0) as i32 }
}

/// The same straight into the namespace behind the veth.
#[classifier]
pub fn bench_bare_tcx_peer(ctx: TcContext) -> i32 {
    if !forward(ctx.data(), ctx.data_end()) {
        return TC_ACT_OK;
    }
    // SAFETY: no preconditions.
    unsafe { bpf_redirect_peer(BARE_IFINDEX.load(), 0) as i32 }
}

/// What a test run of nothing costs, XDP.
#[xdp]
pub fn bench_empty_xdp(_: XdpContext) -> u32 {
    XDP_PASS
}

/// What a test run of nothing costs, TCX.
#[classifier]
pub fn bench_empty_tcx(_: TcContext) -> i32 {
    TC_ACT_OK
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // A reachable panic must fail in the verifier, which refuses a loop without end.
    loop {}
}

/// The kernel refuses some helpers to programs without a licence compatible with its own.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
