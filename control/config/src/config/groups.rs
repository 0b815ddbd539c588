//! Address groups, resolved.

use std::path::PathBuf;
use std::time::Duration;

use super::GroupId;
use crate::address::Member;
use crate::document::ListFormat;

/// One set of addresses: `members`, `groups`, `feed`, `dns`, `pods` and `address_group` together, without `except` and `except_groups`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its name; for a literal, the literal in its canonical form.
    pub name: String,
    /// Whether it stands for an address written in a rule.
    pub literal: bool,
    /// Its members in the order of the document; may be empty.
    pub members: Vec<Member>,
    /// Groups whose addresses belong to it too. No group contains itself, by `members` or by `except`.
    pub groups: Vec<GroupId>,
    /// What does not belong to it.
    pub except: Vec<Member>,
    /// Groups whose addresses do not belong to it.
    pub except_groups: Vec<GroupId>,
    /// Where more members come from.
    pub feed: Option<Box<Feed>>,
    /// Names whose addresses belong to it: lower case, without a dot at the end, each once.
    pub dns: Vec<String>,
    /// Pods whose addresses belong to it.
    pub pods: Option<Box<PodSelection>>,
    /// The object `AddressGroup` whose addresses belong to it, as namespace/name.
    pub address_group: Option<String>,
    /// Line of the name, or of the first use of a literal.
    pub line: u32,
}

/// A list to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Where it is: `https://`, `http://` or `file://`.
    pub url: String,
    /// How it is written.
    pub format: ListFormat,
    /// Where the addresses are in JSON.
    pub keys: Vec<String>,
    /// How often it is fetched.
    pub interval: Duration,
    /// How long an address that left it stays, and a list whose server does not answer.
    pub hold: Option<Duration>,
    /// The most entries.
    pub max_entries: u32,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// File with the authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// What to show to the server.
    pub client_certificate: Option<ClientCertificate>,
    /// Whether it may cover every address.
    pub allow_default_route: bool,
}

/// Pods by their labels. The selectors are as the Kubernetes API takes them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodSelection {
    /// Labels of the pods.
    pub selector: String,
    /// Their namespaces, each once, in ascending order; empty: all.
    pub namespaces: Vec<String>,
    /// Labels of their namespaces; only where `namespaces` is empty.
    pub namespace_selector: Option<String>,
    /// The attachment whose addresses count, as namespace/name; `None`: the pods' own.
    pub network: Option<String>,
}

/// A certificate to show to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// File with the certificate chain.
    pub certificate_file: PathBuf,
    /// File with the private key.
    pub key_file: PathBuf,
}
