//! The BPF objects. Thin: each entry point wraps its context, runs the pipeline and turns the verdict into the hook's
//! return code. What decides lives in `bulkhead-pipeline`.
//!
//! | program | hook | does |
//! |---|---|---|
//! | `bulkhead_xdp` | XDP | established sessions, malformed packets; everything else goes on |
//! | `bulkhead_ingress` | TCX ingress | parse, established sessions; the rest by tail calls: |
//! | `bulkhead_session` | tail call | known sessions |
//! | `bulkhead_open` | tail call | the first packet of a conversation, as far as policy |
//! | `bulkhead_admit` | tail call | its translation and its session |
//! | `bulkhead_related` | tail call | ICMP errors about sessions |
//! | `bulkhead_neighbour` | tail call | ARP and neighbour discovery |
//! | `bulkhead_egress` | TCX egress | the firewall's own packets |
//! | `bulkhead_control` | test run | user space: switch generations, expire sessions |
#![no_std]
#![no_main]
// Atomic addition, see `tables::atomic_increment`.
#![feature(asm_experimental_arch)]

mod control;
mod maps;
mod tables;
mod tc;
mod xdp;

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::{
        __sk_buff, TC_ACT_OK, TC_ACT_SHOT, bpf_redir_neigh,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    helpers::generated::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use bulkhead_abi::Reason;
use bulkhead_pipeline::{
    Action, Stage, Tables as _, Verdict, Work, established, host_egress, ingress, stage,
};

use crate::{tables::Kernel, tc::SkbFrame, xdp::XdpFrame};

/// Mark of packets that the ingress program redirected, for the egress program they then meet. A packet loses its mark on
/// most ways into this namespace, not on all; so the mark counts only together with a guarded ingress interface, from
/// which the kernel itself forwards nothing.
pub(crate) const REDIRECTED_MARK: u32 = 0x0b0c_4eaf;

/// Mark of frames that user space puts back: it sends them out of the interface they came from, and the egress program turns
/// them round. Drawn by user space when it loads the object, so that nobody who may set marks in another namespace, from
/// where a few ways in keep them, can pass for user space: not without trying four thousand million of them.
#[unsafe(no_mangle)]
static INJECT_MARK: Global<u32> = Global::new(0);

/// Whether a mark is that of frames put back.
#[inline(always)]
fn is_injected(mark: u32) -> bool {
    let own = INJECT_MARK.load();
    own != 0 && mark == own
}

/// Remembers that user space put the frame back.
#[inline(never)]
fn put_back(skb: *mut __sk_buff, work: &mut Work) {
    work.injected = 1;
    // SAFETY: the context is valid while the program runs. Nobody else is to judge by the mark.
    unsafe { (*skb).mark = 0 };
    Kernel.count(Reason::SLOT_FRAMES_INJECTED);
}

/// `BPF_F_INGRESS`.
const TO_INGRESS: u64 = 1;

/// Slots of the scratch map. The stages of the ingress program share one: a packet is in one of them at a time.
///
/// One program runs inside another in one place: `bpf_clone_redirect` (a SYN+ACK acknowledged in the client's place) sends
/// its copy at once, through the egress program of that interface, while the ingress program waits. Hence a slot per hook.
/// Nothing else nests: redirects are carried out when the program has ended, and what enters an interface goes through its
/// backlog (`netif_rx`). The egress program sends no copies.
mod scratch {
    pub const INGRESS: u32 = 0;
    pub const EGRESS: u32 = 1;
    pub const XDP: u32 = 2;
    pub const CONTROL: u32 = 3;
}

/// This CPU's scratch entry of a program.
#[inline(always)]
fn work(slot: u32) -> Option<&'static mut Work> {
    // SAFETY: a per-CPU entry used by one hook only. All programs run with bottom halves disabled, and the one that runs
    // inside another is of another hook (see `scratch`). The reference dies with the packet.
    maps::SCRATCH.get_ptr_mut(slot).map(|work| unsafe { &mut *work })
}

/// TCX ingress: the whole pipeline.
#[classifier]
pub fn bulkhead_ingress(ctx: TcContext) -> i32 {
    let Some(work) = work(scratch::INGRESS) else {
        return TC_ACT_SHOT;
    };
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    let Some(mut frame) = SkbFrame::load(skb, &mut work.headers) else {
        Kernel.count(Reason::Truncated as u32);
        return TC_ACT_SHOT;
    };
    // SAFETY: the context is valid while the program runs.
    unsafe {
        work.ifindex = (*skb).ifindex;
        work.injected = 0;
        if is_injected((*skb).mark) {
            put_back(skb, work);
        }
    };
    work.vlan = frame.vlan();
    let verdict = if work.vlan != 0 && !Kernel.wired() {
        Verdict::drop(Reason::VlanTagged)
    } else {
        ingress(&mut frame, &Kernel, work)
    };
    settle(&ctx, work, verdict)
}

/// A later stage of the ingress program.
#[inline(always)]
fn go_on(ctx: &TcContext, next: Stage) -> i32 {
    let Some(work) = work(scratch::INGRESS) else {
        return TC_ACT_SHOT;
    };
    let mut frame = SkbFrame::again(ctx.as_ptr().cast());
    let verdict = stage(&mut frame, &Kernel, work, next);
    settle(ctx, work, verdict)
}

/// Known sessions.
#[classifier]
pub fn bulkhead_session(ctx: TcContext) -> i32 {
    go_on(&ctx, Stage::Session)
}

/// The first packet of a conversation.
#[classifier]
pub fn bulkhead_open(ctx: TcContext) -> i32 {
    go_on(&ctx, Stage::Open)
}

/// Its translation and its session.
#[classifier]
pub fn bulkhead_admit(ctx: TcContext) -> i32 {
    go_on(&ctx, Stage::Admit)
}

/// ICMP errors about sessions.
#[classifier]
pub fn bulkhead_related(ctx: TcContext) -> i32 {
    go_on(&ctx, Stage::Related)
}

/// ARP and neighbour discovery.
#[classifier]
pub fn bulkhead_neighbour(ctx: TcContext) -> i32 {
    go_on(&ctx, Stage::Neighbour)
}

/// Jumps to the program of a stage. Comes back only if there is none, or 33 are behind us.
#[inline(always)]
fn jump(ctx: &TcContext, next: u32) {
    // Constant indices: the kernel turns such calls into direct jumps.
    // SAFETY: nothing here needs dropping, and the context is the one this program was given.
    unsafe {
        if next == Stage::Session as u32 {
            maps::STAGES.tail_call(ctx, Stage::Session as u32);
        } else if next == Stage::Open as u32 {
            maps::STAGES.tail_call(ctx, Stage::Open as u32);
        } else if next == Stage::Admit as u32 {
            maps::STAGES.tail_call(ctx, Stage::Admit as u32);
        } else if next == Stage::Related as u32 {
            maps::STAGES.tail_call(ctx, Stage::Related as u32);
        } else {
            maps::STAGES.tail_call(ctx, Stage::Neighbour as u32);
        }
    }
}

/// The verdict as TCX's return code.
#[inline(always)]
fn settle(ctx: &TcContext, work: &Work, verdict: Verdict) -> i32 {
    if verdict.action == Action::Stage {
        jump(ctx, work.stage);
    }
    if verdict.action == Action::Held {
        return TC_ACT_SHOT;
    }
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    Kernel.count(verdict.reason as u32);
    let code = match verdict.action {
        Action::Pass => i64::from(TC_ACT_OK),
        Action::Redirect => {
            // SAFETY: the context is valid and `mark` writable; see REDIRECTED_MARK.
            unsafe { (*skb).mark = REDIRECTED_MARK };
            // SAFETY: no preconditions; an unknown interface drops the packet.
            unsafe { bpf_redirect(work.out_ifindex, 0) }
        }
        // SAFETY: as above; user space sets the flag only for a veth whose peer lives in another namespace.
        Action::RedirectPeer => unsafe { bpf_redirect_peer(work.out_ifindex, 0) },
        Action::RedirectNeighbour => {
            // SAFETY: as for Redirect.
            unsafe { (*skb).mark = REDIRECTED_MARK };
            redirect_neighbour(work)
        }
        Action::Drop | Action::NextHook | Action::Stage | Action::Held => i64::from(TC_ACT_SHOT),
    };
    code as i32
}

/// Lets the kernel resolve the next hop; the packet waits in its queue meanwhile.
#[inline(never)]
fn redirect_neighbour(work: &Work) -> i64 {
    /// `AF_INET` and `AF_INET6` (include/linux/socket.h).
    const AF_INET: u32 = 2;
    const AF_INET6: u32 = 10;
    // SAFETY: all-zero is a valid bpf_redir_neigh.
    let mut next_hop: bpf_redir_neigh = unsafe { core::mem::zeroed() };
    let (family, address_be) = match work.route.gateway_family {
        0 => (u32::from(work.packet.family), work.flow.new_destination_be),
        family => (family, work.route.gateway_be),
    };
    if family == 4 {
        next_hop.nh_family = AF_INET;
        next_hop.__bindgen_anon_1.ipv4_nh = address_be[0];
    } else {
        next_hop.nh_family = AF_INET6;
        next_hop.__bindgen_anon_1.ipv6_nh = address_be;
    }
    // SAFETY: the parameters are fully initialised and of the size given.
    unsafe {
        bpf_redirect_neigh(
            work.out_ifindex,
            &raw mut next_hop,
            size_of::<bpf_redir_neigh>() as i32,
            0,
        )
    }
}

/// TCX egress: the firewall's own packets, and a stop for what the kernel forwards behind our back.
#[classifier]
pub fn bulkhead_egress(ctx: TcContext) -> i32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context is valid while the program runs.
    let (mark, ingress_ifindex, ifindex) = unsafe { ((*skb).mark, (*skb).ingress_ifindex, (*skb).ifindex) };
    if mark == REDIRECTED_MARK && maps::INTERFACES.get_ptr(ingress_ifindex).is_some() {
        return TC_ACT_OK;
    }
    let from_outside = ingress_ifindex != 0;
    if is_injected(mark) && !from_outside {
        // SAFETY: no preconditions. The frame enters the interface it was about to leave, with its mark.
        return unsafe { bpf_redirect(ifindex, TO_INGRESS) } as i32;
    }
    let Some(work) = work(scratch::EGRESS) else {
        return TC_ACT_SHOT;
    };
    let Some(mut frame) = SkbFrame::load(skb, &mut work.headers) else {
        return if from_outside { TC_ACT_SHOT } else { TC_ACT_OK };
    };
    work.ifindex = ifindex;
    work.vlan = 0;
    let verdict = host_egress(&mut frame, &Kernel, work, mark, from_outside);
    Kernel.count(verdict.reason as u32);
    if verdict.action == Action::Pass {
        TC_ACT_OK
    } else {
        TC_ACT_SHOT
    }
}

/// XDP: the part that needs no socket buffer. What it does not settle goes on to TCX, never around it.
#[xdp(frags)]
pub fn bulkhead_xdp(ctx: XdpContext) -> u32 {
    let Some(work) = work(scratch::XDP) else {
        return XDP_PASS;
    };
    let Some(mut frame) = XdpFrame::load(ctx.ctx, &mut work.headers) else {
        Kernel.count(Reason::Truncated as u32);
        return XDP_DROP;
    };
    work.ifindex = ctx.ingress_ifindex() as u32;
    let verdict = established(&mut frame, &Kernel, work);
    match verdict.action {
        Action::NextHook
        | Action::Pass
        | Action::RedirectNeighbour
        | Action::RedirectPeer
        | Action::Stage
        | Action::Held => XDP_PASS,
        Action::Drop => {
            Kernel.count(verdict.reason as u32);
            XDP_DROP
        }
        Action::Redirect => {
            Kernel.count(verdict.reason as u32);
            // SAFETY: no preconditions; an interface that cannot take the frame drops it.
            unsafe { bpf_redirect(work.out_ifindex, 0) as u32 }
        }
    }
}

/// User space's requests, as packets of a test run; see [`control`]. Returns 1 if something was done.
#[classifier]
pub fn bulkhead_control(ctx: TcContext) -> i32 {
    control::serve(&ctx)
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
