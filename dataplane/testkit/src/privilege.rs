//! Whether a privileged test may run here.

/// Set to `1` where privileged tests cannot run and that is known.
pub const SKIP_VARIABLE: &str = "BULKHEAD_SKIP_PRIVILEGED";

/// Whether the calling test is to go on. Begin each with `if !privileged() { return; }`.
///
/// # Panics
/// Without root, unless [`SKIP_VARIABLE`] says that skipping is meant: a test that did not run must not look
/// as if it had passed.
#[must_use]
pub fn privileged() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let skip = std::env::var_os(SKIP_VARIABLE).is_some_and(|value| value == "1");
    assert!(
        skip,
        "this test makes network namespaces and needs root; run it with sudo, or set {SKIP_VARIABLE}=1"
    );
    eprintln!("SKIPPED: needs root, and {SKIP_VARIABLE}=1 says to skip such tests");
    false
}
