//! What the machine says about names: `resolv.conf(5)` and `hosts(5)`. Read at every lookup, for both may change.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::time::Duration;

/// The most of either file that is read.
const MAX_BYTES: u64 = 1 << 20;
/// As resolv.conf(5): MAXNS.
const MAX_SERVERS: usize = 3;

/// Where the machine says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// `/etc/resolv.conf`
    pub resolv_conf: PathBuf,
    /// `/etc/hosts`
    pub hosts: PathBuf,
    /// The port of the servers: 53.
    pub port: u16,
}

impl Default for System {
    fn default() -> Self {
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
            port: 53,
        }
    }
}

/// Whom to ask, and how patiently.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Servers {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) timeout: Duration,
    pub(super) attempts: u32,
}

impl System {
    pub(super) fn servers(&self) -> Servers {
        parse(&read(&self.resolv_conf), self.port)
    }

    /// What the file of hosts says about a name, whatever its case.
    pub(super) fn hosts(&self, name: &str) -> Vec<IpAddr> {
        let name = name.trim_end_matches('.');
        let mut found = Vec::new();
        for line in read(&self.hosts).lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else {
                continue;
            };
            if words.any(|known| known.eq_ignore_ascii_case(name)) && !found.contains(&address) {
                found.push(address);
            }
        }
        found
    }
}

/// A file that is not there says nothing.
fn read(path: &std::path::Path) -> String {
    let mut content = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut content)) {
        Ok(_) => String::from_utf8_lossy(&content).into_owned(),
        Err(_) => String::new(),
    }
}

fn parse(text: &str, port: u16) -> Servers {
    let mut found = Servers {
        servers: Vec::new(),
        timeout: Duration::from_secs(5),
        attempts: 2,
    };
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") if found.servers.len() < MAX_SERVERS => {
                found
                    .servers
                    .extend(words.next().and_then(|word| server(word, port)));
            }
            Some("options") => {
                for option in words {
                    let number = |name: &str, most| {
                        Some(option.strip_prefix(name)?.parse::<u32>().ok()?.clamp(1, most))
                    };
                    if let Some(seconds) = number("timeout:", 30) {
                        found.timeout = Duration::from_secs(seconds.into());
                    }
                    found.attempts = number("attempts:", 5).unwrap_or(found.attempts);
                }
            }
            _ => {}
        }
    }
    if found.servers.is_empty() {
        found.servers.push((Ipv4Addr::LOCALHOST, port).into());
    }
    found
}

/// An address; one of IPv6 that holds on one link may name it by number (`fe80::1%2`).
fn server(word: &str, port: u16) -> Option<SocketAddr> {
    let (address, scope) = word.split_once('%').unwrap_or((word, "0"));
    Some(match address.parse().ok()? {
        IpAddr::V4(address) => (address, port).into(),
        IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, scope.parse().ok()?).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_its_manual_says() {
        let found = parse(
            "# a comment\nsearch example.org\nnameserver 192.0.2.53\nnameserver fe80::1%2\nnameserver no\n\
             nameserver 2001:db8::53\nnameserver 192.0.2.54\noptions ndots:5 timeout:1 attempts:9\n",
            53,
        );
        let servers: Vec<String> = found.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.53:53", "[fe80::1%2]:53", "[2001:db8::53]:53"]);
        assert_eq!((found.timeout, found.attempts), (Duration::from_secs(1), 5));
        assert_eq!(
            parse("", 53).servers,
            ["127.0.0.1:53".parse().expect("an address")]
        );
    }

    #[test]
    fn hosts_are_found_by_any_of_their_names() {
        let directory = tempfile::tempdir().expect("a directory");
        let system = System {
            hosts: directory.path().join("hosts"),
            ..System::default()
        };
        std::fs::write(
            &system.hosts,
            "192.0.2.1 one ONE.example # two\n2001:db8::1\tone\nbroken one\n",
        )
        .expect("a file");
        assert_eq!(system.hosts("One").len(), 2);
        assert_eq!(system.hosts("one.example.").len(), 1);
        assert_eq!(system.hosts("two").len(), 0);
    }
}
