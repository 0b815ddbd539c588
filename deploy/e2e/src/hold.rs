//! What runs in a container that is there for its network: clients, servers, a firewall's interfaces. Does nothing, until it
//! is killed; tests enter its network namespace and converse from there.
#![forbid(unsafe_code)]

fn main() {
    loop {
        std::thread::park();
    }
}
