//! What settings may be, read from words; and the words of the names they have elsewhere.
//!
//! Every refusal says what is allowed. Pure: what exists on the machine is asked elsewhere.

use std::net::SocketAddr;
use std::time::Duration;

use bulkhead_config::{Forwarding, MAX_INTERFACES, SizeName, nearest};
use clap::ValueEnum;

use crate::words;

/// What the start does while data interfaces are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnMissing {
    /// It waits for them; nothing is enforced meanwhile
    Wait,
    /// It ends with status 2
    #[default]
    Stop,
}

/// What becomes of the addresses that the document gives to interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Addresses {
    /// Interfaces get them, beside those they have
    #[default]
    Add,
    /// Interfaces keep what they have, and get none
    Keep,
}

/// Which interface is for management, and never touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ManagementInterface {
    /// None is known.
    #[default]
    None,
    /// The first that is up, by index.
    First,
    /// The last.
    Last,
    /// This one.
    Named(String),
}

/// Where probes and metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On this address.
    Address(SocketAddr),
    /// On all addresses of the management interface.
    Interface(u16),
}

/// CPUs by number, ascending.
pub type Cpus = Vec<usize>;

/// CPU numbers that a set can hold (`CPU_SETSIZE`).
const MOST_CPUS: usize = 1024;

fn listed<'w>(words: impl Iterator<Item = &'w str> + Clone) -> String {
    let words: Vec<&str> = words.collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// One of several words.
fn one_of<'w, T: Copy>(text: &str, known: impl Iterator<Item = (&'w str, T)> + Clone) -> Result<T, String> {
    let words = known.clone().map(|(word, _)| word);
    if let Some((_, value)) = known.clone().find(|(word, _)| *word == text) {
        return Ok(value);
    }
    let guess =
        nearest(text, words.clone()).map_or_else(String::new, |word| format!("; did you mean {word}?"));
    Err(format!("it can be {}{guess}", listed(words)))
}

/// One of the words of a [`ValueEnum`].
pub fn word<T: ValueEnum + Copy + 'static>(text: &str) -> Result<T, String> {
    let values: Vec<(String, T)> = T::value_variants()
        .iter()
        .filter_map(|value| Some((value.to_possible_value()?.get_name().to_owned(), *value)))
        .collect();
    one_of(text, values.iter().map(|(word, value)| (word.as_str(), *value)))
}

/// `routed` or `wire`
pub fn forwarding(text: &str) -> Result<Forwarding, String> {
    one_of(text, Forwarding::ALL.into_iter().map(|mode| (mode.name(), mode)))
}

/// `small` to `xlarge`
pub fn size(text: &str) -> Result<SizeName, String> {
    one_of(text, SizeName::ALL.into_iter().map(|size| (size.name(), size)))
}

/// A number of data interfaces.
pub fn ports(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=MAX_INTERFACES).contains(&number) => Ok(number),
        _ => Err(format!(
            "it can be 1 to {MAX_INTERFACES}, the data interfaces; that for management is not counted"
        )),
    }
}

/// What an instance is called: as a pod may be.
pub fn instance(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    let outer =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    match bytes.len() <= 253
        && bytes.iter().copied().all(inner)
        && outer(bytes.first())
        && outer(bytes.last())
    {
        true => Ok(text.to_owned()),
        false => Err(
            "it can be the name of a pod: at most 253 lower case letters, digits, hyphens and dots"
                .to_owned(),
        ),
    }
}

/// `on` or `off`
pub fn switch(text: &str) -> Result<bool, String> {
    one_of(text, [("on", true), ("off", false)].into_iter())
}

/// A number of revisions.
pub fn revisions(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 2..=10_000) => Ok(number),
        _ => Err("it can be 2 to 10000".to_owned()),
    }
}

/// How long a stop may take before it begins.
pub fn drain(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(3_600);
    match words::parse_duration(text) {
        Ok(drain) if drain <= LONGEST => Ok(drain),
        Ok(_) => Err("it can be 0s to 1h".to_owned()),
        Err(wrong) => Err(wrong),
    }
}

/// How long a neighbour is believed.
pub fn neighbour_timeout(text: &str) -> Result<Duration, String> {
    match words::parse_duration(text) {
        Ok(time) if (1..=86_400).contains(&time.as_secs()) => Ok(time),
        Ok(_) => Err("it can be 1s to 1d".to_owned()),
        Err(wrong) => Err(wrong),
    }
}

/// `first`, `last`, `none`, or a name.
pub fn management_interface(text: &str) -> Result<ManagementInterface, String> {
    match text {
        "none" => Ok(ManagementInterface::None),
        "first" => Ok(ManagementInterface::First),
        "last" => Ok(ManagementInterface::Last),
        // The kernel's own rule (dev_valid_name).
        name if name.len() <= 15
            && !matches!(name, "" | "." | "..")
            && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) =>
        {
            Ok(ManagementInterface::Named(name.to_owned()))
        }
        _ => Err("it can be first, last, none, or the name of an interface".to_owned()),
    }
}

/// `off`, `ADDRESS:PORT` or `:PORT`.
pub fn listen(text: &str) -> Result<Option<Listen>, String> {
    const ALLOWED: &str = "it can be off, an address and a port such as 10.0.0.5:9360 or [fd00::5]:9360, or a port of the \
                           management interface such as :9360";
    if text == "off" {
        return Ok(None);
    }
    if let Some(port) = text.strip_prefix(':') {
        return match port.parse() {
            Ok(port) if port != 0 => Ok(Some(Listen::Interface(port))),
            _ => Err(ALLOWED.to_owned()),
        };
    }
    let address: SocketAddr = text.parse().map_err(|_| ALLOWED.to_owned())?;
    if address.port() == 0 {
        return Err(ALLOWED.to_owned());
    }
    if address.ip().is_unspecified() {
        return Err(format!(
            "all addresses would include those of data interfaces; write :{} for all of the management interface",
            address.port()
        ));
    }
    Ok(Some(Listen::Address(address)))
}

/// `https://HOST[:PORT][/PATH]` or `wss://…`: nothing that is sent in the clear, and no password in it.
pub fn management_server(text: &str) -> Result<(), String> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("wss://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    let host = authority.map(|authority| {
        let port = authority
            .rsplit_once(':')
            .filter(|(_, port)| !port.ends_with(']'));
        port.map_or((authority, true), |(host, port)| {
            (host, port.parse::<u16>().is_ok_and(|port| port != 0))
        })
    });
    let printable = text.chars().all(|c| c.is_ascii_graphic());
    match host {
        Some((host, true)) if printable && !host.is_empty() && !host.contains('@') => Ok(()),
        _ => Err(
            "it can be a URL such as https://director.example:4320, without a user's name or password in it"
                .to_owned(),
        ),
    }
}

/// The token, or `@FILE`.
pub fn enrolment_token(text: &str) -> Result<(), String> {
    match text.strip_prefix('@').unwrap_or(text) {
        "" => Err("it can be the token, or @ and the path of a file that holds it".to_owned()),
        _ => Ok(()),
    }
}

/// A hexadecimal mask (`0x5`) or a list (`0-3,5`).
pub fn cpus(text: &str) -> Result<Cpus, String> {
    let wrong = || {
        format!(
            "it can be a mask such as 0x5 or a list such as 0-3,5, of CPUs below {MOST_CPUS}, at least one"
        )
    };
    let mut cpus = Cpus::new();
    if let Some(mask) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        for (place, digit) in mask.chars().rev().enumerate() {
            let digit = digit.to_digit(16).ok_or_else(wrong)?;
            cpus.extend(
                (0..4)
                    .filter(|bit| digit >> bit & 1 == 1)
                    .map(|bit| place * 4 + bit),
            );
        }
    } else {
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.parse::<usize>().map_err(|_| wrong());
            let (first, last) = (number(first)?, number(last)?);
            if last >= MOST_CPUS || first > last {
                return Err(wrong());
            }
            cpus.extend(first..=last);
        }
    }
    cpus.sort_unstable();
    cpus.dedup();
    match cpus.last() {
        Some(last) if *last < MOST_CPUS => Ok(cpus),
        _ => Err(wrong()),
    }
}

/// `routing` or `wire`
pub fn forward_mode(text: &str) -> Result<String, String> {
    one_of(text, [("routing", "routed"), ("wire", "wire")].into_iter()).map(str::to_owned)
}

/// `large`, or `CSRX-nCPU-nG`: the largest size whose tables, full, leave half of that memory to everything else.
pub fn flavour(text: &str) -> Result<String, String> {
    if text.eq_ignore_ascii_case("large") {
        return Ok(SizeName::Large.name().to_owned());
    }
    let wrong = || "it can be large, or a size such as CSRX-2CPU-4G".to_owned();
    let upper = text.to_ascii_uppercase();
    let rest = upper.strip_prefix("CSRX-").ok_or_else(wrong)?;
    let (cpus, memory) = rest.split_once("CPU-").ok_or_else(wrong)?;
    let _cpus: u32 = cpus.parse().map_err(|_| wrong())?;
    let gigabytes: u64 = memory
        .strip_suffix('G')
        .and_then(|number| number.parse().ok())
        .ok_or_else(wrong)?;
    let room = gigabytes.saturating_mul(1 << 30) / 2;
    let size = SizeName::ALL
        .into_iter()
        .rev()
        .find(|size| most_bytes(*size) <= room)
        .unwrap_or(SizeName::Small);
    Ok(size.name().to_owned())
}

/// What tables of a size take when they are full.
fn most_bytes(size: SizeName) -> u64 {
    let sizes = crate::translate::table_sizes(&size.size(), size.sessions(), size.half_open());
    bulkhead_dataplane::preflight::most_table_bytes(&sizes)
}

/// All interfaces, of which one is for management.
pub fn port_number(text: &str) -> Result<String, String> {
    match text.parse::<usize>() {
        Ok(number) if (2..=MAX_INTERFACES + 1).contains(&number) => Ok((number - 1).to_string()),
        _ => Err(format!(
            "it can be 2 to {}: one for management and the data interfaces",
            MAX_INTERFACES + 1
        )),
    }
}

/// `yes`: the pod's own addresses stay.
pub fn auto_assign(text: &str) -> Result<String, String> {
    one_of(text, [("yes", "keep"), ("no", "add")].into_iter()).map(str::to_owned)
}

/// `yes`: the last interface is for management.
pub fn reorder(text: &str) -> Result<String, String> {
    one_of(text, [("yes", "last"), ("no", "first")].into_iter()).map(str::to_owned)
}

/// A hexadecimal mask, with or without `0x`.
pub fn mask(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    match !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit()) {
        true => Ok(format!("0x{digits}")),
        false => Err("it can be a hexadecimal mask of CPUs such as 0x5".to_owned()),
    }
}

/// A number of seconds.
pub fn seconds(text: &str) -> Result<String, String> {
    match text.parse::<u32>() {
        Ok(seconds) => Ok(format!("{seconds}s")),
        Err(_) => Err("it can be a number of seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_masks_and_lists() {
        for (text, numbers) in [
            ("0x1", &[0][..]),
            ("0x5", &[0, 2]),
            ("0xF0", &[4, 5, 6, 7]),
            ("0x10000000000000001", &[0, 64]),
            ("0", &[0]),
            ("0-3,5", &[0, 1, 2, 3, 5]),
            ("5,1-2,2", &[1, 2, 5]),
        ] {
            assert_eq!(cpus(text).as_deref(), Ok(numbers), "{text}");
        }
        for text in ["", "0x", "0x0", "0xg", "3-1", "1024", "1-", "a", "0,,1", "-1"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_management_server_is_never_reached_in_the_clear() {
        for text in [
            "https://director",
            "https://10.0.0.5:4320/v1/opamp",
            "wss://[fd00::5]:4320",
            "https://[fd00::5]",
        ] {
            assert_eq!(management_server(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "director:4320",
            "http://director",
            "ws://director",
            "https://",
            "https://:443",
            "https://a:0",
            "https://a:b",
            "https://user:word@director",
            "https://dir ector",
        ] {
            assert!(management_server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn probes_are_never_served_on_all_addresses() {
        assert_eq!(listen("off"), Ok(None));
        assert_eq!(listen(":9360"), Ok(Some(Listen::Interface(9360))));
        let address = "127.0.0.1:9360".parse().expect("an address");
        assert_eq!(listen("127.0.0.1:9360"), Ok(Some(Listen::Address(address))));
        for text in ["0.0.0.0:9360", "[::]:9360"] {
            assert!(
                listen(text).is_err_and(|error| error.contains("write :9360")),
                "{text}"
            );
        }
        for text in ["", "9360", "10.0.0.1", ":0", "10.0.0.1:0", "eth0:9360", ":66000"] {
            assert!(listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_flavour_is_the_size_that_fits_its_memory() {
        assert_eq!(flavour("large").as_deref(), Ok("large"));
        let named = |text: &str| size(&flavour(text).expect("a size")).expect("a size");
        assert!(named("CSRX-1CPU-1G") < named("CSRX-16CPU-64G"));
        for gigabytes in [4, 8, 64] {
            let size = named(&format!("csrx-2cpu-{gigabytes}g"));
            assert!(
                size == SizeName::Small || most_bytes(size) <= gigabytes << 29,
                "{gigabytes}"
            );
        }
        for text in ["", "huge", "CSRX-2CPU", "CSRX-xCPU-4G", "CSRX-2CPU-4M"] {
            assert!(flavour(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wrong_word_is_answered_with_the_right_ones() {
        assert_eq!(
            size("larg"),
            Err("it can be small, medium, large or xlarge; did you mean large?".to_owned())
        );
        assert_eq!(
            word::<OnMissing>("ignore"),
            Err("it can be wait or stop".to_owned())
        );
        assert_eq!(drain("2h"), Err("it can be 0s to 1h".to_owned()));
        assert!(management_interface("a/b").is_err() && management_interface("eth0").is_ok());
        assert!(
            instance("").is_err()
                && instance("Edge").is_err()
                && instance("-a").is_err()
                && instance("edge-0.a").is_ok()
        );
        assert!(neighbour_timeout("0s").is_err() && ports("16").is_err() && ports("0").is_err());
    }
}
