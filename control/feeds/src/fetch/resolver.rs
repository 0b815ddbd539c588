//! The addresses of a feed's server, by our own lookup: the one of glibc needs shared libraries that a static binary
//! does not have.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::names::{System, lookup};

/// The longest lookup; the fetch as a whole may allow less.
const LONGEST: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Names {
    system: System,
    failure: Failure,
}

/// Why the last lookup failed: the client's error has no room for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Failure(Arc<Mutex<String>>);

impl Failure {
    pub(super) fn take(&self) -> String {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Names {
    pub(super) fn new(system: System) -> Self {
        Self {
            system,
            failure: Failure::default(),
        }
    }

    pub(super) fn failure(&self) -> Failure {
        self.failure.clone()
    }
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let port = uri.port_u16().unwrap_or(default);
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = match literal.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => {
                let patience = timeout.not_zero().map_or(LONGEST, |left| LONGEST.min(*left));
                let found = lookup(host, &self.system, Instant::now() + patience);
                let found = found.map_err(|error| {
                    *self.failure.0.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
                    ureq::Error::HostNotFound
                })?;
                found.addresses.into_iter().map(|(address, _)| address).collect()
            }
        };
        let mut sockets = self.empty();
        for address in addresses {
            // The first sixteen are plenty.
            let _ = sockets.try_push(SocketAddr::new(address, port));
        }
        match sockets.is_empty() {
            true => Err(ureq::Error::HostNotFound),
            false => Ok(sockets),
        }
    }
}
