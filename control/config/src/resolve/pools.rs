//! Pools of translation: their addresses as ranges, and which kind of rule each is for.

use super::{Checker, Names, sorted};
use crate::address::{Member, parse_member};
use crate::config::{Pool, PoolAlarm, PoolId, PoolUse};
use crate::document::{PoolAlarmEntry, PoolEntry};
use crate::node::steps;
use crate::ranges::{merged, unusable};
use crate::service::{PortRange, parse_ports};

/// The most ranges of one family that a pool has, neighbours merged.
pub const MAX_POOL_RANGES: usize = 8;

impl Checker<'_, '_> {
    pub(super) fn pools(&mut self, entries: &[PoolEntry]) -> Vec<Pool> {
        let mut pools = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let members = self.pool_addresses(index, entry);
            let (ipv4, ipv6) = merged(&members);
            for (family, ranges) in [("IPv4", &ipv4), ("IPv6", &ipv6)] {
                if ranges.len() > MAX_POOL_RANGES {
                    let message = format!(
                        "pool \"{}\" has {} separate {family} ranges",
                        entry.name,
                        ranges.len()
                    );
                    let help = format!("it can have {MAX_POOL_RANGES}: use fewer and larger ones");
                    self.error_at_key(
                        &steps!["spec", "nat", "pools", index, "addresses"],
                        (message, Some(help)),
                    );
                }
            }
            pools.push(Pool {
                name: entry.name.clone(),
                ipv4,
                ipv6,
                usage: self.pool_use(index, entry),
                line: self.line(&steps!["spec", "nat", "pools"], index),
            });
        }
        pools
    }

    fn pool_addresses(&mut self, index: usize, entry: &PoolEntry) -> Vec<Member> {
        if entry.addresses.is_empty() {
            let message = format!("pool \"{}\" has no addresses", entry.name);
            let help = "write `addresses: [203.0.113.0/28]`".to_owned();
            self.error_at_key(
                &steps!["spec", "nat", "pools", index, "addresses"],
                (message, Some(help)),
            );
        }
        let mut members = Vec::with_capacity(entry.addresses.len());
        for (place, text) in entry.addresses.iter().enumerate() {
            let path = steps!["spec", "nat", "pools", index, "addresses", place];
            match parse_member(text) {
                Ok(member) => {
                    if let Some((address, why)) = unusable(&member.range()) {
                        let message = format!("pool \"{}\" holds {address}, {why}", entry.name);
                        let help = "write addresses that hosts can have".to_owned();
                        self.error(&path, (message, Some(help)));
                    }
                    members.push(member);
                }
                Err(refusal) => self.error(&path, refusal),
            }
        }
        members
    }

    fn pool_use(&mut self, index: usize, entry: &PoolEntry) -> PoolUse {
        let at = |field: &'static str| steps!["spec", "nat", "pools", index, field];
        let ports = self.pool_ports(index, entry);
        let alarm = entry.alarm.as_ref().map(|alarm| self.pool_alarm(index, alarm));
        let for_source = [
            ("ports", entry.ports.is_some()),
            ("paired", entry.paired.is_some()),
            ("alarm", entry.alarm.is_some()),
        ];
        let mut for_source = for_source.into_iter().filter(|(_, written)| *written);
        match (entry.port, for_source.next()) {
            (None, None) => PoolUse::Either,
            (None, Some(_)) => PoolUse::Source {
                ports,
                paired: entry.paired.unwrap_or(true),
                alarm,
            },
            (Some(0), _) => {
                let help = "ports are 1 to 65535; to keep the port, leave it out".to_owned();
                self.error(&at("port"), ("port 0 is not a port".to_owned(), Some(help)));
                PoolUse::Either
            }
            (Some(port), other) => {
                if let Some((other, _)) = other {
                    let message = format!("pool \"{}\" has both `port` and `{other}`", entry.name);
                    let help = "`port` is for destination rules, `ports`, `paired` and `alarm` are for source rules: \
                                write two pools";
                    self.error_at_key(&at("port"), (message, Some(help.to_owned())));
                }
                PoolUse::Destination(port)
            }
        }
    }

    /// `None` for `none`.
    fn pool_ports(&mut self, index: usize, entry: &PoolEntry) -> Option<PortRange> {
        let text = match &entry.ports {
            None => return Some(Pool::DEFAULT_PORTS),
            Some(written) if written.0 == "none" => return None,
            Some(written) => &written.0,
        };
        match parse_ports(text) {
            Ok(ports) => Some(ports),
            Err((message, _)) => {
                let help = "write a range within 1-65535, such as 1024-65535, or none to keep every port";
                let path = steps!["spec", "nat", "pools", index, "ports"];
                self.error(&path, (message, Some(help.to_owned())));
                Some(Pool::DEFAULT_PORTS)
            }
        }
    }

    fn pool_alarm(&mut self, index: usize, entry: &PoolAlarmEntry) -> PoolAlarm {
        let at = |field: &'static str| steps!["spec", "nat", "pools", index, "alarm", field];
        let raise = self.per_cent(&at("raise"), Some(entry.raise), 100);
        let clear = self.per_cent(&at("clear"), Some(entry.clear), 1);
        if clear >= raise {
            let message =
                format!("the alarm would be raised at {raise} and cleared below {clear} per cent at once");
            let help = "write a `clear` that is less than `raise`".to_owned();
            self.error(&at("clear"), (message, Some(help)));
        }
        PoolAlarm { raise, clear }
    }
}

/// The pools that can be named.
pub(super) struct Pools<'d> {
    names: Names<'d>,
    table: Vec<Pool>,
}

impl<'d> Pools<'d> {
    pub(super) fn new(names: Names<'d>, table: Vec<Pool>) -> Self {
        Self { names, table }
    }

    pub(super) fn id(&self, name: &str) -> Option<PoolId> {
        self.names.get(name).map(|&index| PoolId(index as u32))
    }

    pub(super) fn get(&self, id: PoolId) -> &Pool {
        &self.table[id.0 as usize]
    }

    /// In the order of the document.
    pub(super) fn names(&self) -> Vec<&'d str> {
        sorted(&self.names)
    }

    pub(super) fn into_table(self) -> Vec<Pool> {
        self.table
    }
}
