//! One end of a TCP connection after RFC 9293, in so far as a firewall in the middle can tell: sequence numbers, windows,
//! repetition, half-close. No congestion control and no timers: when something happens is up to the dice.
//!
//! Written from the RFC and from habits of real stacks, not from the pipeline's: it is what the pipeline is judged by.

use std::collections::BTreeMap;

use crate::frame::{ACK, FIN, PSH, RST, SYN};

use super::dice::Dice;

/// A segment on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    /// Bytes of data.
    pub length: u32,
    /// Window scale, of a SYN.
    pub scale: Option<u8>,
}

impl Segment {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The sequence number after it.
    pub fn end(&self) -> u32 {
        self.seq
            .wrapping_add(self.length)
            .wrapping_add(u32::from(self.has(SYN)) + u32::from(self.has(FIN)))
    }
}

/// What kind of host it is, and what it has to say.
#[derive(Clone, Debug)]
pub struct Habits {
    pub initial: u32,
    /// Largest segment it sends; an aggregate may have tens of kilobytes.
    pub segment: u32,
    /// Receive buffer.
    pub buffer: u32,
    pub scale: Option<u8>,
    /// Bytes it has to send.
    pub data: u32,
    /// Bytes of them that go in the SYN (RFC 7413).
    pub early: u32,
    /// Sends data right behind its SYN+ACK.
    pub speaks_early: bool,
    /// Sends its FIN only once the other side has.
    pub closes_last: bool,
    /// Advertises nothing when its buffer is full, even what it had offered (Linux does, under memory pressure).
    pub shrinks: bool,
    /// Probes a closed window with a byte beyond it; else with an empty segment before it.
    pub probes_beyond: bool,
}

/// Position in a stream: 0 is the byte behind the SYN.
type Place = i64;

/// One end.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub habits: Habits,
    /// Sent a SYN.
    pub opened: bool,
    /// The other side's initial sequence number.
    peer: Option<u32>,
    /// Our SYN was acknowledged.
    pub established: bool,
    pub reset: bool,
    fin_sent: bool,
    una: Place,
    next: Place,
    /// Up to where the other side lets us send.
    window_end: Place,
    update: (Place, Place),
    received: Place,
    waiting: BTreeMap<Place, Place>,
    peer_fin: Option<Place>,
    unread: u32,
    edge: Place,
    scaling: bool,
    peer_scale: u8,
    owes_ack: bool,
}

impl Endpoint {
    pub fn new(habits: Habits) -> Self {
        Self {
            habits,
            opened: false,
            peer: None,
            established: false,
            reset: false,
            fin_sent: false,
            una: -1,
            next: -1,
            window_end: 0,
            update: (i64::MIN, i64::MIN),
            received: 0,
            waiting: BTreeMap::new(),
            peer_fin: None,
            unread: 0,
            edge: 0,
            scaling: false,
            peer_scale: 0,
            owes_ack: false,
        }
    }

    /// Everything was said, heard and acknowledged.
    pub fn done(&self) -> bool {
        self.fin_sent && self.una == self.fin_place() + 1 && self.peer_fin == Some(self.received - 1)
    }

    fn fin_place(&self) -> Place {
        i64::from(self.habits.data)
    }

    fn seq(&self, place: Place) -> u32 {
        self.habits.initial.wrapping_add(1).wrapping_add(place as u32)
    }

    fn place(&self, ack: u32) -> Place {
        // Streams are shorter than 2^31.
        i64::from(ack.wrapping_sub(self.seq(self.una)) as i32) + self.una
    }

    fn peer_place(&self, seq: u32) -> Place {
        let base = self.peer.unwrap_or(0).wrapping_add(1);
        i64::from(seq.wrapping_sub(base.wrapping_add(self.received as u32)) as i32) + self.received
    }

    fn peer_seq(&self, place: Place) -> u32 {
        self.peer.unwrap_or(0).wrapping_add(1).wrapping_add(place as u32)
    }

    fn free(&self) -> u32 {
        self.habits.buffer.saturating_sub(self.unread)
    }

    /// Finishes a segment: acknowledgement and window.
    fn emit(&mut self, mut segment: Segment) -> Segment {
        if let Some(peer) = self.peer {
            segment.flags |= ACK;
            segment.ack = peer.wrapping_add(1).wrapping_add(self.received as u32);
            self.owes_ack = false;
        }
        let shift = match (segment.has(SYN), self.scaling) {
            (false, true) => self.habits.scale.unwrap_or(0),
            _ => 0,
        };
        let mut free = self.free();
        if !(self.habits.shrinks && free < self.habits.buffer / 4) {
            // What was offered stays offered (RFC 9293, 3.8.6).
            free = free.max(u32::try_from(self.edge - self.received).unwrap_or(0));
        } else {
            free = 0;
        }
        segment.window = (free >> shift).min(0xffff) as u16;
        let window = u32::from(segment.window) << shift;
        self.edge = self.edge.max(self.received + i64::from(window));
        segment
    }

    /// Sends its SYN, again if need be.
    pub fn open(&mut self) -> Segment {
        self.opened = true;
        let early = if self.peer.is_none() { self.habits.early } else { 0 };
        self.next = self.next.max(i64::from(early));
        self.emit(Segment {
            flags: SYN,
            seq: self.habits.initial,
            length: early,
            scale: self.habits.scale,
            ..Segment::default()
        })
    }

    fn bare(&mut self) -> Segment {
        let seq = self.seq(self.next);
        self.emit(Segment {
            flags: ACK,
            seq,
            ..Segment::default()
        })
    }

    /// Gives up.
    pub fn abort(&mut self) -> Segment {
        self.reset = true;
        Segment {
            flags: RST | ACK,
            seq: self.seq(self.next),
            ack: self.peer_seq(self.received),
            ..Segment::default()
        }
    }

    /// Takes what arrives; what it answers at once.
    pub fn take(&mut self, segment: &Segment) -> Vec<Segment> {
        if self.reset {
            // RFC 9293, 3.10.7.1.
            return if segment.has(ACK) && !segment.has(RST) {
                vec![Segment {
                    flags: RST,
                    seq: segment.ack,
                    ..Segment::default()
                }]
            } else {
                Vec::new()
            };
        }
        if segment.has(RST) {
            // RFC 5961, 3.2.
            let place = self.peer_place(segment.seq);
            let blank =
                self.peer.is_none() && segment.has(ACK) && self.opened && self.place(segment.ack) >= 0;
            if blank || self.peer.is_some() && place == self.received {
                self.reset = true;
                return Vec::new();
            }
            let inside = self.peer.is_some() && place > self.received && place < self.edge;
            return if inside { vec![self.bare()] } else { Vec::new() };
        }
        if segment.has(SYN) {
            return self.take_syn(segment);
        }
        if self.peer.is_none() || !segment.has(ACK) {
            return Vec::new();
        }
        let place = self.peer_place(segment.seq);
        let end = place + i64::from(segment.length) + i64::from(segment.has(FIN));
        let window_end = self.edge.max(self.received);
        let acceptable = end > self.received && place < window_end
            || place == self.received
            || place == window_end && end == place;
        if !acceptable {
            // A repeated segment, a keep-alive, a probe: RFC 9293, 3.10.7.4.
            self.note_ack(segment);
            return vec![self.bare()];
        }
        if !self.note_ack(segment) {
            return vec![self.bare()];
        }
        let mut answers = Vec::new();
        let room = self.received + i64::from(self.free());
        if segment.length > 0 || segment.has(FIN) {
            let data_end = (place + i64::from(segment.length)).min(room);
            if data_end > place {
                let known = self.waiting.entry(place).or_insert(data_end);
                *known = (*known).max(data_end);
            }
            if segment.has(FIN) && place + i64::from(segment.length) <= room {
                self.peer_fin = Some(place + i64::from(segment.length));
            }
            let gap = place > self.received;
            self.advance();
            self.owes_ack = true;
            if gap || segment.has(FIN) {
                answers.push(self.bare());
            }
        }
        answers
    }

    fn advance(&mut self) {
        while let Some((&from, &to)) = self.waiting.first_key_value() {
            if from > self.received {
                break;
            }
            self.waiting.remove(&from);
            if to > self.received {
                self.unread += (to - self.received) as u32;
                self.received = to;
            }
        }
        if self.peer_fin == Some(self.received) {
            self.received += 1;
        }
    }

    fn take_syn(&mut self, segment: &Segment) -> Vec<Segment> {
        if let Some(peer) = self.peer {
            if peer == segment.seq && segment.has(ACK) {
                self.note_ack(segment);
            }
            // Repeated, or a challenge.
            return vec![self.bare()];
        }
        if segment.has(ACK) && !(self.opened && self.place(segment.ack) >= 0) {
            return Vec::new();
        }
        self.peer = Some(segment.seq);
        self.scaling = self.habits.scale.is_some() && segment.scale.is_some();
        self.peer_scale = segment.scale.unwrap_or(0);
        // Early data is taken or left.
        if segment.length > 0 && segment.seq & 1 == 0 {
            self.received = i64::from(segment.length);
            self.unread = segment.length;
        }
        self.window_end = i64::from(segment.window);
        if segment.has(ACK) {
            self.note_ack(segment);
            return vec![self.bare()];
        }
        vec![self.open()]
    }

    /// Takes acknowledgement and window. False: it acknowledges what was never sent.
    fn note_ack(&mut self, segment: &Segment) -> bool {
        let ack = self.place(segment.ack);
        if ack > self.next {
            return false;
        }
        if ack >= 0 {
            self.established = true;
        }
        self.una = self.una.max(ack);
        let shift = match (segment.has(SYN), self.scaling) {
            (false, true) => self.peer_scale,
            _ => 0,
        };
        let update = (self.peer_place(segment.seq), ack);
        if update >= self.update && ack >= self.una {
            self.update = update;
            self.window_end = ack + (i64::from(segment.window) << shift);
        }
        true
    }

    /// Does what there is to do, as the dice have it.
    pub fn act(&mut self, dice: &mut Dice) -> Vec<Segment> {
        if self.reset {
            return Vec::new();
        }
        if !self.established {
            return if self.opened && dice.one_in(8) {
                vec![self.open()]
            } else if self.opened && self.peer.is_some() && self.habits.speaks_early && dice.one_in(4) {
                self.send(dice)
            } else {
                Vec::new()
            };
        }
        match dice.below(12) {
            // The application reads.
            0..=2 => {
                let before = self.free();
                self.unread -= dice.below(self.unread + 1).max(self.unread / 2).min(self.unread);
                if before < self.habits.buffer / 2 && self.free() >= self.habits.buffer / 2 {
                    vec![self.bare()]
                } else {
                    Vec::new()
                }
            }
            3 if self.owes_ack => vec![self.bare()],
            4 if self.una < self.next => self.repeat(dice),
            // Keep-alive (RFC 9293, 3.8.4), with or without a byte.
            5 if dice.one_in(40) && self.una == self.next => {
                let (seq, length) = (self.seq(self.next - 1), dice.below(2));
                vec![self.emit(Segment {
                    flags: ACK,
                    seq,
                    length,
                    ..Segment::default()
                })]
            }
            _ => self.send(dice),
        }
    }

    /// New data, the FIN, or a probe.
    fn send(&mut self, dice: &mut Dice) -> Vec<Segment> {
        let data = i64::from(self.habits.data);
        let room = self.window_end - self.next;
        let seq = self.seq(self.next);
        if self.next < data && room > 0 {
            let most = room.min(data - self.next).min(i64::from(self.habits.segment));
            let length = 1 + dice.below(most as u32);
            let length = if dice.one_in(2) { most as u32 } else { length };
            self.next += i64::from(length);
            let last = self.next == data && room > i64::from(length) && self.may_close() && dice.one_in(2);
            if last {
                self.fin_sent = true;
                self.next += 1;
            }
            let flags = ACK | PSH | if last { FIN } else { 0 };
            return vec![self.emit(Segment {
                flags,
                seq,
                length,
                ..Segment::default()
            })];
        }
        if self.next == data && !self.fin_sent && self.may_close() {
            // A bare FIN goes out whatever the window (Linux), and stands right behind it at most.
            self.fin_sent = true;
            self.next += 1;
            return vec![self.emit(Segment {
                flags: FIN | ACK,
                seq,
                ..Segment::default()
            })];
        }
        if self.next < data && room <= 0 && self.una == self.next && dice.one_in(4) {
            return if self.habits.probes_beyond {
                self.next += 1;
                vec![self.emit(Segment {
                    flags: ACK,
                    seq,
                    length: 1,
                    ..Segment::default()
                })]
            } else {
                let seq = seq.wrapping_sub(1);
                vec![self.emit(Segment {
                    flags: ACK,
                    seq,
                    ..Segment::default()
                })]
            };
        }
        Vec::new()
    }

    fn may_close(&self) -> bool {
        !self.habits.closes_last || self.peer_fin.is_some_and(|fin| fin < self.received)
    }

    /// Something unacknowledged, cut as it comes.
    fn repeat(&mut self, dice: &mut Dice) -> Vec<Segment> {
        let data = i64::from(self.habits.data);
        let sent = self.next.min(data);
        let from = if dice.one_in(3) && sent > self.una {
            self.una + i64::from(dice.below((sent - self.una) as u32))
        } else {
            self.una
        };
        let length = (sent - from).clamp(0, i64::from(self.habits.segment));
        let fin = self.fin_sent && from + length == data;
        if length == 0 && !fin {
            return Vec::new();
        }
        let seq = self.seq(from);
        let flags = ACK | if fin { FIN } else { 0 };
        vec![self.emit(Segment {
            flags,
            seq,
            length: length as u32,
            ..Segment::default()
        })]
    }
}
