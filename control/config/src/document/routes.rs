//! Static routes as they are written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One static route: where what is forwarded to a network goes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with to and via"
)]
pub struct RouteEntry {
    /// The network, such as `10.0.0.0/8`; `0.0.0.0/0` or `::/0` is everything that no other route is for.
    pub to: String,
    /// Address of the router.
    pub via: String,
    /// The data interface that the router is on. Default: the one with an address, written here, in the router's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}
