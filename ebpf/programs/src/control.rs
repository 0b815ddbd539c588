//! The control program: user space asks, the kernel side decides and acts.
//!
//! A store from here is one instruction, where a map update from user space is a memory copy that another CPU may see
//! half done.

use aya_ebpf::programs::TcContext;
use bulkhead_abi::{ControlRequest, FlowKey6, LimitKey, Live, MappingKey, Reason};
use bulkhead_pipeline::{
    Tables as _, Work,
    control::{bury, close, collect, correct, expire_mapping, mark},
};

use crate::{maps, scratch, tables::Kernel, work};

/// Serves one request. Returns 1 if something was done.
#[inline(always)]
pub fn serve(ctx: &TcContext) -> i32 {
    let Some(work) = work(scratch::CONTROL) else {
        return 0;
    };
    // The request stands behind an Ethernet header of zeros.
    let Ok(request) = ctx.load::<ControlRequest>(bulkhead_packet::ETHERNET_BYTES) else {
        return 0;
    };
    let k = request.key;
    match request.operation {
        1 | 2 => {
            let Some(live) = maps::LIVE.get_ptr_mut(0) else {
                return 0;
            };
            // SAFETY: the pointer comes from a successful lookup; judgement and tables are one aligned eight-byte store,
            // the epoch one of four bytes, so a packet reads the old numbers or the new ones.
            unsafe {
                if request.operation == 1 {
                    live.cast::<u64>()
                        .write_volatile(Live::judged_by(request.argument, k[0]));
                } else {
                    (&raw mut (*live).fib_epoch).write_volatile(request.argument);
                }
            }
            1
        }
        44 => {
            let key = LimitKey {
                scope: k[0],
                address_be: [k[1], k[2], k[3], k[4]],
            };
            correct(&Kernel, &key, i64::from(request.argument as i32));
            1
        }
        20..=22 => {
            let outside = MappingKey {
                address_be: [k[0], k[1], k[2], k[3]],
                port: k[4] as u16,
                protocol: (k[4] >> 16) as u8,
                family: (k[4] >> 24) as u8,
                identity: k[5],
            };
            let time_ns = u64::from(k[6]) | u64::from(k[7]) << 32;
            if request.operation == 21 {
                Kernel.use_mapping(&outside, time_ns);
                return 1;
            }
            let force = request.operation == 22;
            i32::from(expire_mapping(&Kernel, work, &outside, time_ns, force))
        }
        // Frames that user space was handed and dropped.
        30 => {
            let limit = Reason::FragmentLimit as u32;
            let timeout = Reason::FragmentTimeout as u32;
            let lost = Reason::GatewayLost as u32;
            if request.argument != limit && request.argument != timeout && request.argument != lost {
                return 0;
            }
            Kernel.add(request.argument, u64::from(k[0]));
            1
        }
        // What a self-test was counted as.
        31 => {
            Kernel.add(request.argument, u64::MAX);
            1
        }
        operation => i32::from(age(work, operation, &request)),
    }
}

/// Why a session is ended. A call of its own, or the compiler would write the whole way twice.
#[inline(never)]
fn closing(argument: u32) -> Reason {
    if argument == Reason::GatewayForgotten as u32 {
        Reason::GatewayForgotten
    } else {
        Reason::SessionClosed
    }
}

/// Serves a request about one session.
#[inline(never)]
fn age(work: &mut Work, operation: u32, request: &ControlRequest) -> bool {
    let k = &request.key;
    let ipv4 = match operation {
        5 | 40 | 42 => true,
        6 | 41 | 43 => false,
        45 => request.argument == 4,
        _ => return false,
    };
    let key = if ipv4 {
        FlowKey6 {
            source_be: [k[0], 0, 0, 0],
            destination_be: [k[1], 0, 0, 0],
            source_port: k[2] as u16,
            destination_port: (k[2] >> 16) as u16,
            protocol: k[3],
        }
    } else {
        FlowKey6 {
            source_be: [k[0], k[1], k[2], k[3]],
            destination_be: [k[4], k[5], k[6], k[7]],
            source_port: k[8] as u16,
            destination_port: (k[8] >> 16) as u16,
            protocol: k[9],
        }
    };
    let family = if ipv4 { 4 } else { 6 };
    match operation {
        5 | 6 => close(&Kernel, work, family, &key, closing(request.argument)),
        40 | 41 => mark(&Kernel, work, family, &key, request.argument),
        42 | 43 => collect(&Kernel, work, family, &key, request.argument),
        _ => bury(&Kernel, work, family, &key),
    }
}
