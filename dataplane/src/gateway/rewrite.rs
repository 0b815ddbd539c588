//! One segment of an FTP control connection: what it announces is expected, what must read differently on the other side is
//! rewritten, and the numbers that earlier rewriting moved are moved.
//!
//! Works on frames as they arrived, before the packet path translates them. Segments it cannot read it leaves alone.

use std::net::IpAddr;

use bulkhead_packet::{HeaderBuffer, Kind, Packet, PlainLoop, checksum, parse, tcp_flags};
use etherparse::{Ipv4HeaderSlice, TcpHeaderSlice};

use super::{
    ftp::{Announcement, Listener, announcement},
    sequence::Shift,
};
use crate::address::address;

/// Data connections are expected on ports from here on only: an announcement must not open a service of its host.
const LOWEST_PORT: u16 = 1024;

/// The ends of a control connection, and what each of them takes the other for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client's own address.
    pub client: IpAddr,
    /// The client as the server sees it.
    pub client_outside: IpAddr,
    /// The server's own address.
    pub server: IpAddr,
    /// The server as the client sees it.
    pub server_outside: IpAddr,
}

impl Ends {
    /// Whether either side is seen under another address, which announcements must then be changed to.
    #[must_use]
    pub fn are_translated(&self) -> bool {
        self.client != self.client_outside || self.server != self.server_outside
    }
}

/// A conversation that was announced: `from` will open one to `to`, which is really `goes_to` at `port`, and `goes_to` must
/// see `seen_as` as its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Who opens.
    pub from: IpAddr,
    /// The address it opens to.
    pub to: IpAddr,
    /// Whom that is.
    pub goes_to: IpAddr,
    /// The port announced by whom it is.
    pub port: u16,
    /// Its source as `goes_to` must see it.
    pub seen_as: IpAddr,
    /// Which side listens.
    pub listener: Listener,
}

/// Both directions of one control connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    to_server: Shift,
    to_client: Shift,
}

impl Control {
    /// Treats one segment. `expect` makes the announced conversation expected and returns the port at [`Expected::to`] for it;
    /// `None`: it cannot be, and the segment goes on as it is.
    ///
    /// Returns the frame to send in its place, its checksum finished; `None` if it stays as it is.
    pub fn treat(
        &mut self,
        frame: &[u8],
        ends: &Ends,
        from_client: bool,
        expect: impl FnOnce(&Expected) -> Option<u16>,
    ) -> Option<Vec<u8>> {
        let packet = segment(frame)?;
        if !is_whole(frame, &packet) {
            // Whoever receives it will find out.
            return None;
        }
        let header = usize::from(packet.l4);
        let data = header + usize::from(packet.tcp_header_bytes);
        let end = data + packet.payload_bytes as usize;
        let payload = frame.get(data..end)?;
        let (own, other) = if from_client {
            (&mut self.to_server, &self.to_client)
        } else {
            (&mut self.to_client, &self.to_server)
        };
        // The padding of a short frame is no part of the packet.
        let mut out = frame[..end].to_vec();
        let seq = own.forward(packet.seq);
        let is_syn = packet.tcp_flags & tcp_flags::SYN != 0;
        if !is_syn
            && let Some(found) = announcement(payload, from_client)
            && let Some(expected) = ends.expected(&found)
            && let Some(port) = expect(&expected)
            && let Some(text) = found.form.write(expected.to, port)
        {
            let by = text.len() as i32 - found.range.len() as i32;
            own.note(packet.seq, by);
            out.splice(
                data + found.range.start..data + found.range.end,
                text.into_bytes(),
            );
        }
        if own.is_needed() || other.is_needed() {
            put32(&mut out, header + 4, seq);
            if packet.tcp_flags & tcp_flags::ACK != 0 {
                put32(&mut out, header + 8, other.back(packet.ack));
            }
            blank_selective_acknowledgements(&mut out[header + 20..data]);
        }
        finish(&mut out, &packet)?;
        (out != frame[..end]).then_some(out)
    }
}

impl Ends {
    /// What an announcement makes expected; `None` if it announces a service's port, or somebody else's address, which is how a server is made to
    /// scan for others (RFC 2577, section 3).
    fn expected(&self, found: &Announcement) -> Option<Expected> {
        let (from, to, goes_to, seen_as) = match found.listener {
            Listener::Client => (self.server, self.client_outside, self.client, self.server_outside),
            Listener::Server => (self.client, self.server_outside, self.server, self.client_outside),
        };
        if found.address.is_some_and(|address| address != goes_to) || found.port < LOWEST_PORT {
            return None;
        }
        Some(Expected {
            from,
            to,
            goes_to,
            port: found.port,
            seen_as,
            listener: found.listener,
        })
    }
}

/// The TCP segment in a frame; `None` for anything else, IPv6 with extension headers included.
pub(super) fn segment(frame: &[u8]) -> Option<Packet> {
    let headers = HeaderBuffer::from_frame(frame);
    let mut packet = Packet::default();
    parse(
        &PlainLoop,
        &headers,
        u32::try_from(frame.len()).ok()?,
        false,
        &mut packet,
    )
    .ok()?;
    let plain = packet.family == 4 || packet.l4 == packet.l3 + 40;
    (packet.kind == Kind::Ip && packet.protocol == bulkhead_abi::protocol::TCP && plain).then_some(packet)
}

pub(super) fn put16(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub(super) fn put32(frame: &mut [u8], at: usize, value: u32) {
    frame[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// Overwrites SACK blocks (RFC 2018) by no-operations: they count in numbers that have moved, and going without costs a
/// control connection nothing.
fn blank_selective_acknowledgements(options: &mut [u8]) {
    let mut at = 0;
    while at < options.len() {
        match options[at] {
            0 => return,
            1 => at += 1,
            kind => {
                let Some(length) = options.get(at + 1).map(|length| usize::from(*length)) else {
                    return;
                };
                if length < 2 || at + length > options.len() {
                    return;
                }
                if kind == 5 {
                    options[at..at + length].fill(1);
                }
                at += length;
            }
        }
    }
}

/// Whether the segment's checksum is right, or holds the pseudo header's sum alone, which is how a sender on this machine
/// leaves it to hardware.
pub(super) fn is_whole(frame: &[u8], packet: &Packet) -> bool {
    let at = usize::from(packet.l4) + 16;
    let l4_bytes = packet.l3_bytes - u32::from(packet.l4 - packet.l3);
    let pseudo = checksum::pseudo_header(
        &packet.source_be,
        &packet.destination_be,
        packet.protocol,
        l4_bytes,
    );
    let end = usize::from(packet.l3) + packet.l3_bytes as usize;
    let (Some(field), Some(whole)) = (frame.get(at..at + 2), frame.get(..end)) else {
        return false;
    };
    let field = [field[0], field[1]];
    let mut finished = whole.to_vec();
    finish(&mut finished, packet).is_some()
        && (finished[at..at + 2] == field || checksum::fold(pseudo).to_ne_bytes() == field)
}

/// Lengths and checksums of a segment whose payload or numbers changed.
pub(super) fn finish(frame: &mut [u8], packet: &Packet) -> Option<()> {
    let (l3, l4) = (usize::from(packet.l3), usize::from(packet.l4));
    let l3_bytes = u16::try_from(frame.len() - l3).ok()?;
    if packet.family == 4 {
        put16(frame, l3 + 2, l3_bytes);
        let sum = Ipv4HeaderSlice::from_slice(&frame[l3..])
            .ok()?
            .to_header()
            .calc_header_checksum();
        put16(frame, l3 + 10, sum);
    } else {
        put16(frame, l3 + 4, l3_bytes - 40);
    }
    let header = TcpHeaderSlice::from_slice(&frame[l4..]).ok()?;
    let payload = &frame[l4 + header.slice().len()..];
    let source = address(packet.family, &packet.source_be);
    let destination = address(packet.family, &packet.destination_be);
    let sum = match (source, destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => header
            .calc_checksum_ipv4_raw(a.octets(), b.octets(), payload)
            .ok()?,
        (IpAddr::V6(a), IpAddr::V6(b)) => header
            .calc_checksum_ipv6_raw(a.octets(), b.octets(), payload)
            .ok()?,
        _ => return None,
    };
    put16(frame, l4 + 16, sum);
    Some(())
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const CLIENT: &str = "10.1.0.2";
    const OUTSIDE: &str = "198.51.100.1";
    const SERVER: &str = "192.0.2.80";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn ends() -> Ends {
        Ends {
            client: ip(CLIENT),
            client_outside: ip(OUTSIDE),
            server: ip(SERVER),
            server_outside: ip(SERVER),
        }
    }

    /// A segment of the client, or the answer of the server as it arrives at the firewall.
    fn frame(from_client: bool, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
        let (source, destination, ports) = if from_client {
            ([10, 1, 0, 2], [192, 0, 2, 80], (4000, 21))
        } else {
            ([192, 0, 2, 80], [198, 51, 100, 1], (21, 4000))
        };
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(source, destination, 64)
            .tcp(ports.0, ports.1, seq, 1000)
            .ack(ack)
            .options_raw(&[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2])
            .expect("fits");
        let mut out = Vec::new();
        builder.write(&mut out, payload).expect("written");
        out
    }

    fn read(frame: &[u8]) -> (u32, u32, String) {
        check_sums(frame);
        let headers = etherparse::PacketHeaders::from_ethernet_slice(frame).expect("a packet");
        let Some(etherparse::TransportHeader::Tcp(tcp)) = headers.transport else {
            panic!("no TCP");
        };
        let payload = String::from_utf8(headers.payload.slice().to_vec()).expect("text");
        (tcp.sequence_number, tcp.acknowledgment_number, payload)
    }

    /// Sums by the book rather than by what wrote them.
    fn check_sums(frame: &[u8]) {
        let sum = |bytes: &[u8], start: u32| {
            let mut sum = start;
            for pair in bytes.chunks(2) {
                sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            }
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            sum
        };
        assert_eq!(sum(&frame[14..34], 0), 0xffff, "header checksum");
        let length = frame.len() as u32 - 34;
        let pseudo = sum(&frame[26..34], 6 + length);
        assert_eq!(sum(&frame[34..], pseudo), 0xffff, "TCP checksum");
    }

    #[test]
    fn a_port_command_is_rewritten_and_everything_behind_moves() {
        let mut control = Control::default();
        let mut asked = None;
        let command = frame(true, 1000, 500, b"PORT 10,1,0,2,156,64\r\n");
        let out = control
            .treat(&command, &ends(), true, |expected| {
                asked = Some(*expected);
                Some(40001)
            })
            .expect("rewritten");
        let (seq, ack, payload) = read(&out);
        assert_eq!((seq, ack), (1000, 500));
        assert_eq!(payload, "PORT 198,51,100,1,156,65\r\n");
        assert_eq!(
            asked,
            Some(Expected {
                from: ip(SERVER),
                to: ip(OUTSIDE),
                goes_to: ip(CLIENT),
                port: 40000,
                seen_as: ip(SERVER),
                listener: Listener::Client
            })
        );
        // The answer acknowledges four bytes more than the client sent.
        let answer = frame(false, 500, 1026, b"200 PORT\r\n");
        let (seq, ack, _) = read(&control.treat(&answer, &ends(), false, |_| None).expect("moved"));
        assert_eq!((seq, ack), (500, 1022));
        // The next command; its SACK block is gone.
        let next = frame(true, 1022, 510, b"LIST\r\n");
        let moved = control.treat(&next, &ends(), true, |_| None).expect("moved");
        assert_eq!(read(&moved), (1026, 510, "LIST\r\n".to_owned()));
        assert_eq!(moved[54..66], [1; 12]);
        // The command repeated: the same again.
        let again = control.treat(&command, &ends(), true, |_| Some(40001));
        assert_eq!(read(&again.expect("rewritten")).2, "PORT 198,51,100,1,156,65\r\n");
        assert_eq!(
            read(&control.treat(&next, &ends(), true, |_| None).expect("moved")).0,
            1026
        );
    }

    #[test]
    fn without_translation_nothing_changes_and_the_connection_is_expected() {
        let mut control = Control::default();
        let own = Ends {
            client_outside: ip(CLIENT),
            ..ends()
        };
        let mut asked = 0;
        let command = frame(true, 1000, 500, b"PORT 10,1,0,2,156,64\r\n");
        let out = control.treat(&command, &own, true, |expected| {
            asked += 1;
            Some(expected.port)
        });
        assert_eq!((out, asked), (None, 1));
    }

    #[test]
    fn somebody_elses_address_or_a_services_port_is_not_expected() {
        let mut control = Control::default();
        let service = frame(true, 1000, 500, b"PORT 10,1,0,2,0,22\r\n");
        let out = control.treat(&service, &ends(), true, |_| panic!("a service was opened"));
        assert_eq!(out, None);
        let command = frame(true, 1000, 500, b"PORT 10,1,0,3,156,64\r\n");
        let out = control.treat(&command, &ends(), true, |_| panic!("a bounce was expected"));
        assert_eq!(out, None);
        let answer = frame(false, 500, 1000, b"227 (10,9,9,9,4,1)\r\n");
        let out = control.treat(&answer, &ends(), false, |_| panic!("a bounce was expected"));
        assert_eq!(out, None);
    }

    #[test]
    fn an_unfinished_checksum_is_finished_and_a_wrong_one_is_left() {
        let mut control = Control::default();
        let right = frame(true, 1000, 500, b"NOOP\r\n");
        let mut unfinished = right.clone();
        let packet = segment(&right).expect("a segment");
        let pseudo = checksum::pseudo_header(&packet.source_be, &packet.destination_be, 6, 38);
        unfinished[50..52].copy_from_slice(&checksum::fold(pseudo).to_ne_bytes());
        assert_eq!(
            control.treat(&unfinished, &ends(), true, |_| None),
            Some(right.clone())
        );
        assert_eq!(control.treat(&right, &ends(), true, |_| None), None);
        let mut wrong = frame(true, 1000, 500, b"PORT 10,1,0,2,156,64\r\n");
        wrong[50] ^= 1;
        let out = control.treat(&wrong, &ends(), true, |_| panic!("a damaged line was believed"));
        assert_eq!(out, None);
    }

    #[test]
    fn what_is_no_segment_is_left_alone() {
        let mut control = Control::default();
        let whole = frame(true, 1, 1, b"PORT 10,1,0,2,156,64\r\n");
        for length in 0..whole.len() {
            let out = control.treat(&whole[..length], &ends(), true, |_| panic!("a part was read"));
            assert_eq!(out, None);
        }
    }
}
