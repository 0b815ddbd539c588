//! Packet scripts: frames in, verdicts, bytes and counters out. Every step names all counters that move; that nothing
//! else moved is part of each assertion.

mod frame;
mod net;
mod step;
mod translation;
mod verify;

mod ageing;
mod datagram;
mod fragments;
mod gateway;
mod interleaving;
mod limits;
mod model;
mod nat;
mod neighbours;
mod own;
mod policy;
mod properties;
mod protocols;
mod related;
mod rematch;
mod screen_rates;
mod screen_shapes;
mod screens;
mod session_limits;
mod syn_proxy;
mod tcp;
mod tcp_segment;
mod tcp_states;
mod tcp_window;
mod unanswered;
mod wire;
mod xdp;

/// An inside client, an outside server and the router towards it, per family.
const FAMILIES: [(&str, &str, &str); 2] = [
    ("10.1.0.2", "192.0.2.80", "198.51.100.254"),
    ("2001:db8:1::2", "2001:db8:80::80", "2001:db8:2::fe"),
];
