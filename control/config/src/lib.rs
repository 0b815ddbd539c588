//! The typed configuration of Bulkhead: from the text of `firewall.yaml` to a resolved [`Config`].
//!
//! Owns the document's shape ([`Document`]), its JSON Schema ([`json_schema`]), every check that needs nothing
//! but the text, and the sentence a person reads when a check fails ([`Diagnostic`]). Knows no kernel, no
//! cluster and no data plane; what exists on a machine is asked by whoever knows it ([`check_interfaces`]).
//! Refuses to stop at the first fault: one call reports all of them, each with its line and column, and a
//! text with a single error yields no `Config` at all.
//!
//! YAML is read with `granit-parser`, the event parser beneath serde-saphyr, because a typed deserializer
//! (serde-saphyr's `Spanned`, yaml_serde) gives up at the first wrong type and has no position for a key,
//! while events carry a position for every key and every value.
//!
//! ```
//! let text = "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: edge }\nspec:\n  zones: [{ name: web }]\n  interfaces: [{ name: net1, zone: wbe }]\n";
//! let refused = bulkhead_config::parse("firewall.yaml", text).unwrap_err();
//! assert_eq!(
//!     refused.errors().next().unwrap().to_string(),
//!     r#"firewall.yaml:6:36: interface "net1" names zone "wbe", which does not exist; did you mean "web"?"#,
//! );
//! ```
#![forbid(unsafe_code)]

mod address;
mod config;
mod diagnostic;
mod diff;
mod document;
mod fault;
mod node;
mod object;
mod one_or_many;
mod overrides;
mod ranges;
mod read;
mod reference;
mod resolve;
mod schema;
mod service;
mod suggest;
mod toggle;
mod yaml;

pub use address::{IpPrefix, IpRange, Member};
pub use config::{
    ClientCertificate, Config, DestinationRule, EarlyAgeing, Excess, Extent, Feed, Group, GroupId,
    IcmpScreen, Interface, InterfaceAddress, InterfaceId, Mss, Persistent, PodSelection, Policy, Pool,
    PoolAlarm, PoolId, PoolUse, Route, Scan, Screen, ScreenId, Selector, Service, ServiceId, SessionLimit,
    SessionLimits, Size, SourceRule, SourceTranslation, StaticRule, SynFlood, Tcp, TcpScreen, Timeouts,
    UdpScreen, Wire, Zone, ZoneId,
};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use diff::{Change, Difference, FieldDifference, diff};
pub use document::{
    Action, AddressGroup, Alg, ClientCertificateEntry, DestinationNat, DestinationTranslation, Document,
    EarlyAgeingEntry, FeedEntry, Forwarding, Hook, IcmpScreens, InterfaceEntry, IpScreens, ListFormat,
    LogEvent, Metadata, Midstream, Nat, Passage, PersistentScope, Pods, PolicyEntry, PoolAlarmEntry,
    PoolEntry, RouteEntry, ScanEntry, ScreenEntry, ServiceEntry, SessionLimitEntry, Sessions, SizeEntry,
    SizeName, SizeNumbers, SourceNat, Spec, StaticNat, SynFloodEntry, TcpEntry, TcpScreens, TimeoutEntries,
    Translation, UdpScreens, Window, WireEntry, ZoneEntry,
};
pub use object::ObjectGroup;
pub use one_or_many::{NumberOrText, OneOrMany};
pub use overrides::{Overrides, Written};
pub use reference::reference;
pub use resolve::{MAX_INTERFACES, MAX_POOL_RANGES, check_interfaces};
pub use schema::json_schema;
pub use service::{IcmpMatch, PortRange, ServiceMatch, builtin_names, builtin_service};
pub use suggest::nearest;
pub use toggle::{Detail, Toggle};
pub use yaml::MAX_DOCUMENT_BYTES;

/// The only `apiVersion` this version reads.
pub const API_VERSION: &str = "bulkhead.dev/v1alpha1";
/// The only `kind` this version reads.
pub const KIND: &str = "Firewall";

/// A text that passed every check.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What was written, with what wins over it.
    pub document: Document,
    /// What it says itself where something may win over it.
    pub written: Written,
    /// What it means.
    pub config: Config,
    /// What is allowed but probably not meant.
    pub warnings: Diagnostics,
}

/// Reads, checks and resolves one configuration.
///
/// `file` is only a name for diagnostics: nothing is opened. JSON is accepted, being YAML.
///
/// # Errors
/// Every diagnostic of the text, warnings included, in the order of the lines, if at least one is an error.
pub fn parse(file: &str, source: impl AsRef<[u8]>) -> Result<Parsed, Diagnostics> {
    parse_with(file, source, &Overrides::default())
}

/// The same, with settings that win over the document's.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(
    file: &str,
    source: impl AsRef<[u8]>,
    overrides: &Overrides,
) -> Result<Parsed, Diagnostics> {
    let mut diagnostics = Diagnostics::new(file);
    let parsed = read::document(source.as_ref(), &mut diagnostics).and_then(|mut read| {
        let written = overrides.apply(&mut read, &mut diagnostics);
        let (document, config) = resolve::config(read, &mut diagnostics)?;
        Some((document, written, config))
    });
    diagnostics.sort();
    match parsed {
        Some((document, written, config)) if !diagnostics.has_errors() => Ok(Parsed {
            document,
            written,
            config,
            warnings: diagnostics,
        }),
        _ => Err(diagnostics),
    }
}
