//! Fragments: in any order, through policy and translation, each by the ports of the first; and what is no fragment of
//! anything that may pass. User space's part, to hold what comes too early, is played here.

mod narrow;
mod order;
mod refused;

use bulkhead_pipeline::Action;

use crate::{
    frame::Frame,
    net::{INSIDE, Net, ZONE_INSIDE, ZONE_OUTSIDE, mac, permit},
    verify::{ones_complement, verify},
};

/// The firewall's outside address, per family.
const OUTER: [&str; 2] = ["198.51.100.1", "2001:db8:2::1"];

fn outbound(translate: bool) -> Net {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    if translate {
        net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
    }
    net
}

/// Cuts a packet without options or extensions into fragments that begin at these offsets, the first of which is 0.
pub fn cut(frame: &Frame, offsets: &[usize], id: u32) -> Vec<Vec<u8>> {
    pieces(&frame.clone().to(mac(INSIDE)).build(), offsets, id)
}

/// The same of a frame's bytes.
pub fn pieces(whole: &[u8], offsets: &[usize], id: u32) -> Vec<Vec<u8>> {
    let (headers, body) = whole.split_at(if whole[12] == 8 { 34 } else { 54 });
    let pieces = offsets.iter().enumerate().map(|(number, from)| {
        let to = offsets.get(number + 1).copied().unwrap_or(body.len());
        let more = number + 1 != offsets.len();
        fragment(headers, &body[*from..to], *from as u16, more, id)
    });
    pieces.collect()
}

/// One fragment: the frame's headers, its bytes, where they stand.
fn fragment(headers: &[u8], bytes: &[u8], offset: u16, more: bool, id: u32) -> Vec<u8> {
    let mut frame = headers.to_vec();
    if headers[12] == 8 {
        frame[16..18].copy_from_slice(&((20 + bytes.len()) as u16).to_be_bytes());
        frame[18..20].copy_from_slice(&(id as u16).to_be_bytes());
        frame[20..22].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
        frame[24..26].fill(0);
        let sum = !ones_complement(0, &frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame[18..20].copy_from_slice(&((8 + bytes.len()) as u16).to_be_bytes());
        let next = std::mem::replace(&mut frame[20], 44);
        frame.extend([next, 0]);
        frame.extend((offset | u16::from(more)).to_be_bytes());
        frame.extend(id.to_be_bytes());
    }
    frame.extend(bytes);
    frame
}

/// Identification, offset, whether more follow, and the bytes of a fragment.
fn read(frame: &[u8]) -> (u32, usize, bool, &[u8]) {
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    if frame[12] == 8 {
        let (field, end) = (word(20), 14 + usize::from(word(16)));
        let offset = usize::from(field & 0x1fff) * 8;
        (word(18).into(), offset, field & 0x2000 != 0, &frame[34..end])
    } else {
        assert_eq!(frame[20], 44, "a fragment header");
        let field = word(56);
        let id = u32::from(word(58)) << 16 | u32::from(word(60));
        (id, usize::from(field & 0xfff8), field & 1 != 0, &frame[62..])
    }
}

/// Puts a datagram together as its receiver does: all of one identification, without gaps or overlaps. Returns the whole
/// frame, whose checksums are verified, and the identification.
#[track_caller]
pub fn reassemble(fragments: &[Vec<u8>]) -> (Vec<u8>, u32) {
    let mut pieces: Vec<_> = fragments.iter().map(|frame| read(frame)).collect();
    pieces.sort_by_key(|(_, offset, ..)| *offset);
    let id = pieces[0].0;
    let mut body: Vec<u8> = Vec::new();
    let last = pieces.len() - 1;
    for (number, (its, offset, more, bytes)) in pieces.into_iter().enumerate() {
        assert_eq!((its, offset, more), (id, body.len(), number != last));
        body.extend(bytes);
    }
    let mut whole;
    if fragments[0][12] == 8 {
        whole = fragments[0][..34].to_vec();
        whole[16..18].copy_from_slice(&((20 + body.len()) as u16).to_be_bytes());
        whole[20..22].fill(0);
        whole[24..26].fill(0);
        let sum = !ones_complement(0, &whole[14..34]);
        whole[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        whole = fragments[0][..54].to_vec();
        whole[18..20].copy_from_slice(&(body.len() as u16).to_be_bytes());
        whole[20] = fragments[0][54];
    }
    whole.extend(body);
    verify(&whole);
    (whole, id)
}

/// Sends fragments in this order, holding and putting back what comes before the first, as user space does. Returns what
/// was forwarded to `out`, and how many were held.
#[track_caller]
fn send(net: &mut Net, from: u32, out: u32, fragments: &[Vec<u8>], order: &[usize]) -> (Vec<Vec<u8>>, usize) {
    let (mut sent, mut waiting, mut held) = (Vec::new(), Vec::new(), 0);
    for number in order {
        let mut frame = fragments[*number].clone();
        frame[..6].copy_from_slice(&mac(from));
        let step = net.receive_bytes(from, &frame);
        if step.outcome.verdict.action == Action::Held {
            assert!(sent.is_empty(), "held though the first went by");
            waiting.push(step.held().frame);
            held += 1;
            continue;
        }
        sent.push(step.forwarded_in_part(out));
        for frame in std::mem::take(&mut waiting) {
            sent.push(net.put_back(from, &frame).forwarded_in_part(out));
        }
    }
    assert!(waiting.is_empty(), "the first never came");
    (sent, held)
}

/// Every order of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in orders(count - 1) {
        for at in 0..count {
            let mut order = shorter.clone();
            order.insert(at, count - 1);
            all.push(order);
        }
    }
    all
}
