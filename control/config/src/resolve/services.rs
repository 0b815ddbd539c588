//! Services: the document's own, expanded, and the builtin ones as they are used.
//!
//! An own service hides the builtin one of the same name. Every entry of the document keeps its index, faulty or not.

use std::collections::HashMap;

use super::quantities::SERVICE_TIMEOUTS;
use super::{Checker, Names, sorted};
use crate::address::Refusal;
use crate::config::{Service, ServiceId, Timeouts};
use crate::document::ServiceEntry;
use crate::node::{Segment, steps};
use crate::one_or_many::{NumberOrText, OneOrMany};
use crate::service::{
    IcmpFamily, ServiceMatch, builtin_names, builtin_service, parse_icmp, parse_ports, parse_protocol,
};
use crate::suggest::nearest;

impl Checker<'_, '_> {
    pub(super) fn services(&mut self, entries: &[ServiceEntry]) -> Vec<Service> {
        let mut services = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let icmp = |family| move |text: &str| parse_icmp(text, family);
            let at = |field: &'static str| steps!["spec", "services", index, field];
            let mut matches = Vec::new();
            self.alternatives(
                &at("tcp"),
                &entry.tcp,
                parse_ports,
                ServiceMatch::Tcp,
                &mut matches,
            );
            self.alternatives(
                &at("udp"),
                &entry.udp,
                parse_ports,
                ServiceMatch::Udp,
                &mut matches,
            );
            self.alternatives(
                &at("icmp"),
                &entry.icmp,
                icmp(IcmpFamily::V4),
                ServiceMatch::Icmp,
                &mut matches,
            );
            self.alternatives(
                &at("icmpv6"),
                &entry.icmpv6,
                icmp(IcmpFamily::V6),
                ServiceMatch::Icmpv6,
                &mut matches,
            );
            self.alternatives(
                &at("protocols"),
                &entry.protocols,
                parse_protocol,
                ServiceMatch::Protocol,
                &mut matches,
            );
            let fields = [
                &entry.tcp,
                &entry.udp,
                &entry.icmp,
                &entry.icmpv6,
                &entry.protocols,
            ];
            if fields.iter().all(|field| field.is_none()) {
                let message = format!("service \"{}\" matches nothing", entry.name);
                let help = "give it tcp, udp, icmp, icmpv6 or protocols".to_owned();
                self.error(&at("name"), (message, Some(help)));
            }
            let timeout = entry.timeout.as_ref().map(|written| {
                let default = Timeouts::default().other;
                self.duration(&at("timeout"), Some(written), default, SERVICE_TIMEOUTS)
            });
            services.push(Service {
                name: entry.name.clone(),
                builtin: false,
                matches,
                timeout,
                line: self.line(&steps!["spec", "services"], index),
            });
        }
        services
    }

    fn alternatives<T>(
        &mut self,
        at: &[Segment],
        written: &Option<OneOrMany<NumberOrText>>,
        parse: impl Fn(&str) -> Result<T, Refusal>,
        wrap: impl Fn(T) -> ServiceMatch,
        matches: &mut Vec<ServiceMatch>,
    ) {
        let Some(written) = written else { return };
        if written.is_empty() {
            self.error(
                at,
                (
                    "the list is empty".to_owned(),
                    Some("leave the field out".to_owned()),
                ),
            );
        }
        for (place, text) in written.iter().enumerate() {
            match parse(&text.0) {
                Ok(value) => matches.push(wrap(value)),
                Err(refusal) => self.error(&[at, &steps![place]].concat(), refusal),
            }
        }
    }
}

/// The services that can be named, and the table they end up in.
pub(super) struct Services<'d> {
    own: Names<'d>,
    builtin: HashMap<&'static str, ServiceId>,
    table: Vec<Service>,
}

impl<'d> Services<'d> {
    pub(super) fn new(own: Names<'d>, table: Vec<Service>) -> Self {
        Self {
            own,
            builtin: HashMap::new(),
            table,
        }
    }

    /// The document's own service of that name, or else the builtin one.
    pub(super) fn id(&mut self, name: &str) -> Option<ServiceId> {
        if let Some(&index) = self.own.get(name) {
            return Some(ServiceId(index as u32));
        }
        if let Some(&id) = self.builtin.get(name) {
            return Some(id);
        }
        let name = builtin_names().find(|builtin| *builtin == name)?;
        let id = ServiceId(self.table.len() as u32);
        let matches = builtin_service(name)?.to_vec();
        self.table.push(Service {
            name: name.to_owned(),
            builtin: true,
            matches,
            timeout: None,
            line: 0,
        });
        self.builtin.insert(name, id);
        Some(id)
    }

    pub(super) fn instead(&self, wanted: &str) -> String {
        let own = sorted(&self.own);
        match nearest(
            wanted,
            own.into_iter()
                .chain(builtin_names().map(|name| -> &'d str { name })),
        ) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!(
                "define it under spec.services, or use {}",
                builtin_names().collect::<Vec<_>>().join(", ")
            ),
        }
    }

    pub(super) fn into_table(self) -> Vec<Service> {
        self.table
    }
}
