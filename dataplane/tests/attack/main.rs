//! The attack tier: real tools (hping3, nmap, scapy) from a host of an attacker through the real firewall.
//!
//! Each test named `attack_*` holds two established connections, IPv4 and IPv6, through the attack: content compared by
//! digest, stalls bounded, sessions the same afterwards. And each proves by double entry that every frame that entered
//! the firewall stands under exactly one reason, and that the reason is one of those listed for the attack.

mod arena;
mod blind;
#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "each test target uses its part of what they share")]
mod common;
mod floods;
mod fragments;
mod malformed;
mod reasons;
mod scans;
mod screens;
