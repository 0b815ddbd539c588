//! What the lines of an FTP control connection announce: where the next data connection goes (RFC 959, RFC 2428).
//!
//! Pure text. Knows nothing of addresses that are translated: it finds the place in the payload, and writes such a place.

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::Range,
};

/// An announcement of a data connection, and where in the payload its address and port stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Who waits for the connection.
    pub listener: Listener,
    /// The address; `None` where the form has none (EPSV's answer): the one the control connection goes to.
    pub address: Option<IpAddr>,
    /// The port, never 0.
    pub port: u16,
    /// The bytes of the payload to replace.
    pub range: Range<usize>,
    /// How to write them.
    pub form: Form,
}

/// The side that waits for the data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The client: PORT, EPRT.
    Client,
    /// The server: the answers to PASV and EPSV.
    Server,
}

/// How address and port are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `h1,h2,h3,h4,p1,p2` (PORT and the answer 227).
    Commas,
    /// `|1|address|port|` with this delimiter (EPRT).
    Extended(char),
    /// `|||port|` with this delimiter (the answer 229).
    PortOnly(char),
}

impl Form {
    /// Address and port in this form. A form without an address leaves it out; IPv6 does not fit commas.
    pub fn write(self, address: IpAddr, port: u16) -> Option<String> {
        match (self, address) {
            (Self::Commas, IpAddr::V4(address)) => {
                let [a, b, c, d] = address.octets();
                Some(format!("{a},{b},{c},{d},{},{}", port >> 8, port & 0xff))
            }
            (Self::Commas, IpAddr::V6(_)) => None,
            (Self::Extended(bar), address) => {
                let family = if address.is_ipv4() { 1 } else { 2 };
                Some(format!("{bar}{family}{bar}{address}{bar}{port}{bar}"))
            }
            (Self::PortOnly(bar), _) => Some(format!("{bar}{bar}{bar}{port}{bar}")),
        }
    }
}

/// The announcement in a segment of the client (`from_client`) or of the server. Only whole lines count, one per segment:
/// nobody sends a second command before the first is answered. A line cut in two is passed on as it is, and the data
/// connection it announces needs a policy of its own.
pub fn announcement(payload: &[u8], from_client: bool) -> Option<Announcement> {
    let text = std::str::from_utf8(payload).ok()?;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(content) = line.strip_suffix('\n') {
            let content = content.strip_suffix('\r').unwrap_or(content);
            let found = if from_client {
                command(content)
            } else {
                answer(content)
            };
            if let Some(mut announcement) = found {
                announcement.range = start + announcement.range.start..start + announcement.range.end;
                return Some(announcement);
            }
        }
        start += line.len();
    }
    None
}

/// PORT and EPRT.
fn command(line: &str) -> Option<Announcement> {
    let (word, rest) = line.split_once(' ')?;
    let arguments = rest.trim();
    let at = line.len() - rest.trim_start().len();
    if word.eq_ignore_ascii_case("PORT") {
        let (address, port) = commas(arguments)?;
        Some(Announcement {
            listener: Listener::Client,
            address: Some(IpAddr::V4(address)),
            port,
            range: at..at + arguments.len(),
            form: Form::Commas,
        })
    } else if word.eq_ignore_ascii_case("EPRT") {
        let bar = arguments.chars().next().filter(char::is_ascii_punctuation)?;
        let mut fields = arguments.split(bar).skip(1);
        let (family, address, port, end) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let address: IpAddr = address.parse().ok()?;
        let families = if address.is_ipv4() { "1" } else { "2" };
        if family != families || !end.is_empty() || fields.next().is_some() {
            return None;
        }
        Some(Announcement {
            listener: Listener::Client,
            address: Some(address),
            port: number(port)?,
            range: at..at + arguments.len(),
            form: Form::Extended(bar),
        })
    } else {
        None
    }
}

/// The answers 227 and 229.
fn answer(line: &str) -> Option<Announcement> {
    if let Some(text) = line.strip_prefix("227 ") {
        // RFC 1123, 4.1.2.6: the text around the six numbers is anybody's, so the first digit begins them.
        let at = 4 + text.find(|c: char| c.is_ascii_digit())?;
        let length = line[at..]
            .find(|c: char| !(c.is_ascii_digit() || c == ','))
            .unwrap_or(line.len() - at);
        let (address, port) = commas(&line[at..at + length])?;
        Some(Announcement {
            listener: Listener::Server,
            address: Some(IpAddr::V4(address)),
            port,
            range: at..at + length,
            form: Form::Commas,
        })
    } else if line.starts_with("229 ") {
        let open = line.find('(')? + 1;
        let close = open + line[open..].find(')')?;
        let inside = &line[open..close];
        let bar = inside.chars().next().filter(char::is_ascii_punctuation)?;
        let mut fields = inside.split(bar);
        let empty = (&mut fields).take(3).all(str::is_empty);
        let (port, end) = (fields.next()?, fields.next()?);
        if !empty || !end.is_empty() || fields.next().is_some() {
            return None;
        }
        Some(Announcement {
            listener: Listener::Server,
            address: None,
            port: number(port)?,
            range: open..close,
            form: Form::PortOnly(bar),
        })
    } else {
        None
    }
}

/// Six numbers between commas.
fn commas(text: &str) -> Option<(Ipv4Addr, u16)> {
    let mut numbers = [0u8; 6];
    let mut fields = text.split(',');
    for number in &mut numbers {
        let field = fields.next()?;
        // No sign, no space: what another parser might read otherwise is nobody's announcement.
        if !field.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = field.parse().ok()?;
    }
    let [a, b, c, d, high, low] = numbers;
    let port = u16::from_be_bytes([high, low]);
    (fields.next().is_none() && port != 0).then(|| (Ipv4Addr::new(a, b, c, d), port))
}

/// A port in decimal digits, not 0.
fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(payload: &str, from_client: bool) -> Option<(Listener, Option<String>, u16, String)> {
        announcement(payload.as_bytes(), from_client).map(|a| {
            let address = a.address.map(|address| address.to_string());
            (a.listener, address, a.port, payload[a.range].to_owned())
        })
    }

    #[test]
    fn announcements_are_found_where_they_stand() {
        for (payload, from_client, want) in [
            (
                "PORT 10,1,0,2,156,64\r\n",
                true,
                (Listener::Client, Some("10.1.0.2"), 40000, "10,1,0,2,156,64"),
            ),
            (
                "port  10,1,0,2,0,21 \r\n",
                true,
                (Listener::Client, Some("10.1.0.2"), 21, "10,1,0,2,0,21"),
            ),
            (
                "EPRT |2|2001:db8::7|5282|\r\n",
                true,
                (
                    Listener::Client,
                    Some("2001:db8::7"),
                    5282,
                    "|2|2001:db8::7|5282|",
                ),
            ),
            (
                "NOOP\r\nEPRT !1!10.1.0.2!5282!\r\n",
                true,
                (Listener::Client, Some("10.1.0.2"), 5282, "!1!10.1.0.2!5282!"),
            ),
            (
                "227 Entering Passive Mode (192,0,2,80,4,1).\r\n",
                false,
                (Listener::Server, Some("192.0.2.80"), 1025, "192,0,2,80,4,1"),
            ),
            (
                "227 =192,0,2,80,4,1\r\n",
                false,
                (Listener::Server, Some("192.0.2.80"), 1025, "192,0,2,80,4,1"),
            ),
            (
                "229 Entering Extended Passive Mode (|||6446|)\r\n",
                false,
                (Listener::Server, None, 6446, "|||6446|"),
            ),
        ] {
            let (listener, address, port, place) = want;
            let want = Some((listener, address.map(str::to_owned), port, place.to_owned()));
            assert_eq!(found(payload, from_client), want, "{payload:?}");
            assert_eq!(
                found(payload, !from_client),
                None,
                "{payload:?} of the other side"
            );
        }
    }

    #[test]
    fn what_is_not_whole_or_not_exact_announces_nothing() {
        for (payload, from_client) in [
            ("PORT 10,1,0,2,156,64", true),
            ("PORT 10,1,0,2,156\r\n", true),
            ("PORT 10,1,0,2,156,64,1\r\n", true),
            ("PORT 10,1,0,256,156,64\r\n", true),
            ("PORT 10,1,0,+2,156,64\r\n", true),
            ("PORT 10,1,0,2,0,0\r\n", true),
            ("EPRT |1|2001:db8::7|5282|\r\n", true),
            ("EPRT |1|10.1.0.2|0|\r\n", true),
            ("EPRT |1|10.1.0.2|70000|\r\n", true),
            ("EPRT |1|10.1.0.2|5282|6|\r\n", true),
            ("STOR PORT 10,1,0,2,156,64\r\n", true),
            ("227 nothing\r\n", false),
            ("2270 (1,2,3,4,5,6)\r\n", false),
            ("229 (||6446|)\r\n", false),
            ("229 (|1||6446|)\r\n", false),
            ("229 (|||+6446|)\r\n", false),
            ("\u{00ff}PORT\r\n", true),
        ] {
            assert_eq!(found(payload, from_client), None, "{payload:?}");
        }
        assert_eq!(announcement(&[0xff, 0xfe, b'\n'], true), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (form, address) in [
            (Form::Commas, "198.51.100.1"),
            (Form::Extended('|'), "198.51.100.1"),
            (Form::Extended('!'), "2001:db8:2::1"),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            let text = form.write(address, 61234).expect("fits");
            let line = match form {
                Form::Commas => format!("PORT {text}\r\n"),
                _ => format!("EPRT {text}\r\n"),
            };
            let read = announcement(line.as_bytes(), true).expect("an announcement");
            assert_eq!((read.address, read.port, read.form), (Some(address), 61234, form));
        }
        assert_eq!(Form::Commas.write("::1".parse().expect("v6"), 1), None);
    }
}
