//! Address groups as they are written: what belongs to them, and where more of it comes from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::one_or_many::{NumberOrText, OneOrMany};

/// One named set of addresses: those of `members`, `feed`, `dns`, `pods` and `addressGroup` together, without those of `except`. `bulkhead group add` adds to it while the firewall runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with a name and members"
)]
pub struct AddressGroup {
    /// Name of the group; `any` and `self` are reserved.
    #[schemars(regex(pattern = crate::schema::NAME))]
    pub name: String,
    /// Addresses (`10.4.1.7`), prefixes (`2001:db8::/64`), ranges (`10.4.2.1-10.4.2.9`) and names of other groups, both families together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<String>>,
    /// What does not belong to it, whatever the other fields say: written as `members` are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub except: Option<Vec<String>>,
    /// Members from a list on a server or in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed: Option<FeedEntry>,
    /// Members by name: the addresses that DNS has for these, for as long as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<OneOrMany<String>>,
    /// Members by label: the addresses of pods, for as long as they run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<Pods>,
    /// Members from an object `AddressGroup` of the Kubernetes API, as namespace/name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_group: Option<String>,
}

/// Where a group fetches members, and how. The last good list stays in force over failures and restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with a url"
)]
pub struct FeedEntry {
    /// Address of the list: `https://…`, `file:///…`, or `http://…` with `allowHttp`.
    pub url: String,
    /// How the list is written. Default: `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ListFormat>,
    /// Where the addresses are in JSON: names joined by dots, `*` for any name, lists are walked through (`prefixes.ip_prefix`). Default: the strings of the outermost list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<OneOrMany<String>>,
    /// How often it is fetched, from 1s to 7d. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = crate::schema::DURATION))]
    pub interval: Option<NumberOrText>,
    /// How long an address that left the list stays a member, and how long the list outlives the server, from 1s to 365d. Default: it leaves at once, and the last good list stays until there is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = crate::schema::DURATION))]
    pub hold: Option<NumberOrText>,
    /// The most entries the list may have, 1 to 2000000; a longer one is refused. Default: 1000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_000_000))]
    pub max_entries: Option<u32>,
    /// File with a token, sent as `Authorization: Bearer`. Read at every fetch. With https only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
    /// File with the certificates (PEM) of the authorities to trust. Default: Mozilla's list, built in. With https only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Certificate to show to the server. With https only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificateEntry>,
    /// Whether an `http://` address is taken, where anybody on the way can change the list. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_http: Option<bool>,
    /// Whether a list is taken that covers every address of a family (`0.0.0.0/0`). Default: false, it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_default_route: Option<bool>,
}

/// A certificate to show to a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping of certificateFile and keyFile"
)]
pub struct ClientCertificateEntry {
    /// File with the certificate (PEM), those of intermediate authorities behind it.
    pub certificate_file: String,
    /// File with its private key (PEM).
    pub key_file: String,
}

/// How a list is written. Compressed lists (`.gz`) are unpacked whatever the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListFormat {
    /// Found out by looking at it.
    #[default]
    Auto,
    /// A line for each address, prefix or range; comments begin with `#`, `;` or `//`.
    Text,
    /// One JSON document.
    Json,
    /// JSON documents one after the other.
    Ndjson,
    /// A STIX 2.1 bundle: the addresses of its valid indicators.
    Stix,
    /// A compressed tar of files of any of these.
    Tgz,
}

/// Which pods a group follows. Needs a Kubernetes API that the firewall may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with a selector"
)]
pub struct Pods {
    /// Label selector, such as `app=payments,tier in (web,api)`.
    pub selector: String,
    /// Namespaces of the pods. Default: all, or those of `namespaceSelector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<OneOrMany<String>>,
    /// Label selector of the namespaces of the pods, instead of their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<String>,
    /// Network attachment whose addresses count, as namespace/name. Default: the pod network, whose addresses are the pod's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}
