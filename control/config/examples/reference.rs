//! Prints the reference of the configuration: what `deploy/docs/configuration.md` is.
#![forbid(unsafe_code)]

fn main() {
    print!("{}", bulkhead_config::reference());
}
