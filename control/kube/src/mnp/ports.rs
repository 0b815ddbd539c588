//! Ports, and what is left of them: in which services a pod refuses whom.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_config::GroupId;

/// Protocols that have ports for NetworkPolicy: TCP, UDP, SCTP.
pub(super) const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// Ports of a protocol, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub protocol: u8,
    pub first: u16,
    pub last: u16,
}

impl Span {
    pub const fn all(protocol: u8) -> Self {
        Self {
            protocol,
            first: 0,
            last: u16::MAX,
        }
    }

    const fn contains(&self, protocol: u8, port: u16) -> bool {
        self.protocol == protocol && self.first <= port && port <= self.last
    }
}

/// What one rule of one policy permits: ports, to or from some peers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Grant {
    /// `None`: anybody.
    pub peers: Option<GroupId>,
    /// `None`: everything.
    pub ports: Option<Vec<Span>>,
}

/// Protocols and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Services {
    /// Ascending.
    pub spans: Vec<Span>,
    /// Every protocol that is not in [`WITH_PORTS`].
    pub others: bool,
}

impl Services {
    /// Whether there is nothing else.
    pub fn is_everything(&self) -> bool {
        self.others && self.spans == WITH_PORTS.map(Span::all)
    }

    /// Adds ports above those there are.
    fn push(&mut self, span: Span) {
        match self.spans.last_mut() {
            Some(last) if last.protocol == span.protocol && last.last.checked_add(1) == Some(span.first) => {
                last.last = span.last;
            }
            _ => self.spans.push(span),
        }
    }
}

/// The complement of what is granted: services in which not everybody is permitted, by the groups that are.
///
/// Between two bounds of any grant all ports of a protocol are alike, so each such piece is asked about once.
pub(super) fn refused(grants: &BTreeSet<Grant>) -> BTreeMap<BTreeSet<GroupId>, Services> {
    let mut refused: BTreeMap<BTreeSet<GroupId>, Services> = BTreeMap::new();
    for protocol in WITH_PORTS {
        let spans = grants.iter().flat_map(|grant| grant.ports.iter().flatten());
        let bounds = spans
            .filter(|span| span.protocol == protocol)
            .flat_map(|span| [Some(span.first), span.last.checked_add(1)]);
        let starts: BTreeSet<u16> = bounds.flatten().chain([0]).collect();
        let mut starts = starts.into_iter().peekable();
        while let Some(first) = starts.next() {
            let last = starts.peek().map_or(u16::MAX, |next| next - 1);
            if let Some(peers) = permitted(grants, |span| span.contains(protocol, first)) {
                refused.entry(peers).or_default().push(Span {
                    protocol,
                    first,
                    last,
                });
            }
        }
    }
    if let Some(peers) = permitted(grants, |_| false) {
        refused.entry(peers).or_default().others = true;
    }
    refused
}

/// Who is permitted where `covers` holds; `None`: anybody.
fn permitted(grants: &BTreeSet<Grant>, covers: impl Fn(&Span) -> bool) -> Option<BTreeSet<GroupId>> {
    let granting = grants
        .iter()
        .filter(|grant| grant.ports.as_ref().is_none_or(|spans| spans.iter().any(&covers)));
    granting.map(|grant| grant.peers).collect()
}
