//! Addresses of names, as the system is configured to look them up.
//!
//! Owns a stub resolver for A and AAAA (RFC 1035, 3596): `/etc/hosts`, then the servers of `/etc/resolv.conf` over UDP with
//! EDNS, over TCP where an answer is cut short. A name is taken as whole, no search list is tried. Ours, and not a
//! library's, because those bring an async runtime and tables of Unicode for two record types; and not glibc's, which
//! needs shared libraries. Assumes that whoever can answer for the configured server may say anything: an answer counts
//! only for the question, port and number it was asked with, and reading one never panics.

mod ask;
mod message;
mod system;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use self::message::Kind;
pub use self::system::System;

/// How long what `/etc/hosts` says is believed: the file may change.
const HOSTS_TTL: Duration = Duration::from_secs(60);

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Each with the time it is good for; ascending, each once. Empty if the name exists without addresses, or not at all.
    pub addresses: Vec<(IpAddr, Duration)>,
    /// How long it is good that there are no others, if the server said so.
    pub negative: Option<Duration>,
}

/// Why nobody knows the addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No server has answered.
    #[error("no DNS server answers for {name} ({last})")]
    Silence {
        /// What was asked.
        name: String,
        /// What happened last.
        last: String,
    },
    /// The servers could not say.
    #[error("the DNS server cannot resolve {name} ({code})")]
    Failed {
        /// What was asked.
        name: String,
        /// SERVFAIL, REFUSED, …
        code: String,
    },
    /// It is no name.
    #[error("{0} is not a name that DNS has addresses for")]
    NoName(String),
}

/// Looks a name up, both families; the addresses of one family do if nobody knows about the other.
///
/// # Errors
/// If no server could say. That a name has no addresses is an answer and no error.
pub fn lookup(name: &str, system: &System, deadline: Instant) -> Result<Found, LookupError> {
    let hosts = system.hosts(name);
    if !hosts.is_empty() {
        let addresses = hosts.into_iter().map(|address| (address, HOSTS_TTL)).collect();
        return Ok(Found {
            addresses,
            negative: None,
        });
    }
    let [four, six] = [Kind::A, Kind::Aaaa].map(|kind| ask::ask(name, kind, system, deadline));
    let mut found = match (four, six) {
        (Ok(mut four), Ok(six)) => {
            four.addresses.extend(six.addresses);
            four.negative = four.negative.into_iter().chain(six.negative).min();
            four
        }
        (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.addresses.is_empty() => found,
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    found.addresses.sort_unstable();
    found.addresses.dedup_by_key(|(address, _)| *address);
    Ok(found)
}
