//! The parser on whatever libFuzzer makes of the stored corpus. `cargo xtask fuzz` runs it.
//!
//! The corpus holds one frame per file; a name begins with what the parser says to it.
#![no_main]

#[path = "../../tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|frame: &[u8]| invariants::check(frame));
