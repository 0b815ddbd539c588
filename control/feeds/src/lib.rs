//! Lists of addresses from elsewhere: reading them, fetching them, keeping the last good one.
//!
//! Owns the formats ([`read`]), the fetching over https, http and from files ([`fetch`]), the lookup of names
//! ([`names`]), the time table ([`schedule`]), what is held after it left a list ([`hold`]) and the copy on disk
//! ([`store`]). Knows neither the data plane nor a cluster: what comes out is prefixes. Assumes that whoever writes a list
//! may be hostile or broken: memory is bounded whatever the input, nothing panics, and a list that says "everyone" is
//! refused unless told otherwise. The clock is passed in.
#![forbid(unsafe_code)]

mod entry;
pub mod fetch;
mod format;
pub mod hold;
mod json;
mod list;
pub mod names;
pub mod schedule;
mod stix;
pub mod store;
mod text;

pub use entry::{Entry, Fault};
pub use format::{Format, read};
pub use list::{Bad, EXAMPLES, List, ListError, Rules, WORST};
