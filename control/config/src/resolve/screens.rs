//! Screen profiles: defaults filled in, thresholds within bounds, and the builtin profile as it is used.
//!
//! An own profile named `default` hides the builtin one.

use std::borrow::Cow;

use super::quantities::SCAN_INTERVALS;
use super::sessions::MAX_SESSIONS;
use super::{Checker, Names, instead, sorted};
use crate::config::{IcmpScreen, Scan, Screen, ScreenId, SessionLimit, SynFlood, TcpScreen, UdpScreen};
use crate::document::{ScanEntry, ScreenEntry, SynFloodEntry};
use crate::node::{Segment, steps};
use crate::toggle::Toggle;

/// More a second than one CPU forwards would protect nobody.
const RATES: (u32, u32) = (1, 1_000_000);
/// With a count of 1 every packet would be a scan; more than these the programs do not tell apart.
const SCAN_COUNTS: (u32, u32) = (2, 128);

impl Checker<'_, '_> {
    pub(super) fn screens(&mut self, entries: &[ScreenEntry]) -> Vec<Screen> {
        entries
            .iter()
            .enumerate()
            .map(|(index, entry)| self.screen(index, entry))
            .collect()
    }

    fn screen(&mut self, index: usize, entry: &ScreenEntry) -> Screen {
        let at = |part: &'static str, field: &'static str| steps!["spec", "screens", index, part, field];
        let ScreenEntry {
            icmp,
            tcp,
            udp,
            session_limit,
            ..
        } = entry;
        Screen {
            name: entry.name.clone(),
            builtin: false,
            alarm_without_drop: entry.alarm_without_drop,
            icmp: IcmpScreen {
                flood: self.threshold(
                    &at("icmp", "flood"),
                    icmp.flood.as_ref(),
                    Screen::DEFAULT_FLOOD,
                    RATES,
                ),
                sweep: self.scan(&at("icmp", "sweep"), icmp.sweep.as_ref()),
                fragment: icmp.fragment,
                large: icmp.large,
                ping_of_death: icmp.ping_of_death,
            },
            ip: entry.ip,
            tcp: TcpScreen {
                land: tcp.land,
                no_flags: tcp.no_flags,
                syn_fin: tcp.syn_fin,
                fin_no_ack: tcp.fin_no_ack,
                winnuke: tcp.winnuke,
                syn_fragment: tcp.syn_fragment,
                port_scan: self.scan(&at("tcp", "portScan"), tcp.port_scan.as_ref()),
                sweep: self.scan(&at("tcp", "sweep"), tcp.sweep.as_ref()),
                syn_flood: self.syn_flood(&at("tcp", "synFlood"), tcp.syn_flood.as_ref()),
                syn_ack_ack: self.threshold(
                    &at("tcp", "synAckAck"),
                    tcp.syn_ack_ack.as_ref(),
                    Screen::DEFAULT_SYN_ACK_ACK,
                    RATES,
                ),
            },
            udp: UdpScreen {
                flood: self.threshold(
                    &at("udp", "flood"),
                    udp.flood.as_ref(),
                    Screen::DEFAULT_FLOOD,
                    RATES,
                ),
                port_scan: self.scan(&at("udp", "portScan"), udp.port_scan.as_ref()),
                sweep: self.scan(&at("udp", "sweep"), udp.sweep.as_ref()),
            },
            session_limit: SessionLimit {
                source: self.session_limit(&at("sessionLimit", "source"), session_limit.source.as_ref()),
                destination: self.session_limit(
                    &at("sessionLimit", "destination"),
                    session_limit.destination.as_ref(),
                ),
            },
            line: self.line(&steps!["spec", "screens"], index),
        }
    }

    fn session_limit(&mut self, path: &[Segment], written: Option<&Toggle<u32>>) -> Option<u32> {
        self.threshold(path, written, Screen::DEFAULT_SESSION_LIMIT, (1, MAX_SESSIONS))
    }

    fn scan(&mut self, path: &[Segment], written: Option<&Toggle<ScanEntry>>) -> Option<Scan> {
        let entry: Cow<'_, ScanEntry> = Toggle::when_on(written)?;
        let at = |field: &'static str| [path, &steps![field]].concat();
        let default = Scan::default();
        Some(Scan {
            count: self.number(&at("count"), entry.count, default.count, SCAN_COUNTS),
            interval: self.duration(
                &at("interval"),
                entry.interval.as_ref(),
                default.interval,
                SCAN_INTERVALS,
            ),
        })
    }

    fn syn_flood(&mut self, path: &[Segment], written: Option<&Toggle<SynFloodEntry>>) -> Option<SynFlood> {
        let entry: Cow<'_, SynFloodEntry> = Toggle::when_on(written)?;
        let default = SynFlood::default();
        let mut rate = |field: &'static str, written, default| {
            self.number(&[path, &steps![field]].concat(), written, default, RATES)
        };
        Some(SynFlood {
            attack: rate("attack", entry.attack, default.attack),
            alarm: rate("alarm", entry.alarm, default.alarm),
            source: rate("source", entry.source, default.source),
            destination: rate("destination", entry.destination, default.destination),
        })
    }
}

/// The profiles that can be named, and the table they end up in.
pub(super) struct Screens<'d> {
    own: Names<'d>,
    table: Vec<Screen>,
}

impl<'d> Screens<'d> {
    pub(super) fn new(own: Names<'d>, table: Vec<Screen>) -> Self {
        Self { own, table }
    }

    /// The document's own profile of that name, or else the builtin one.
    pub(super) fn id(&mut self, name: &str) -> Option<ScreenId> {
        if let Some(&index) = self.own.get(name) {
            return Some(ScreenId(index as u32));
        }
        if name != Screen::BUILTIN {
            return None;
        }
        let found = self.table.iter().position(|screen| screen.builtin);
        let index = found.unwrap_or_else(|| {
            self.table.push(Screen::builtin());
            self.table.len() - 1
        });
        Some(ScreenId(index as u32))
    }

    pub(super) fn instead(&self, wanted: &str) -> String {
        let own = sorted(&self.own);
        let builtin = (!self.own.contains_key(Screen::BUILTIN)).then_some(Screen::BUILTIN);
        instead(wanted, "screens", own.into_iter().chain(builtin))
    }

    pub(super) fn into_table(self) -> Vec<Screen> {
        self.table
    }
}
