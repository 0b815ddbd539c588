//! DNS messages (RFC 1035, 4): one question, and as much of an answer as says which addresses a name has.
//!
//! Reading is total: every index is checked, pointers only lead back and are counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const OPT: u16 = 41;
/// What fits through every path without fragments (DNS flag day 2020).
pub(super) const UDP_BYTES: u16 = 1_232;
/// More records than any honest answer has.
const MOST_RECORDS: usize = 512;
/// The longest chain of aliases that is followed.
const MOST_ALIASES: usize = 16;
/// RFC 8767, 4: a time to live with the sign bit set is 7 days at most to anyone sensible; RFC 2181, 8 calls it 0.
const MAX_TTL: u32 = i32::MAX as u32;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    A = 1,
    Aaaa = 28,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// These, each good for so long.
    Addresses(Vec<(IpAddr, Duration)>),
    /// That there are none, good for so long if it says so (RFC 2308, 5).
    None(Option<Duration>),
    /// It does not fit: ask over TCP.
    Truncated,
    /// The server cannot say: the response code.
    Failed(u8),
}

/// A question. `None` if it is no name.
pub(super) fn query(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(HEADER + name.len() + 2 + 4 + 11);
    // Recursion desired; one question, one additional record.
    for word in [id, 0x0100, 1, 0, 0, 1] {
        message.extend(word.to_be_bytes());
    }
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..64).contains(length))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    (message.len() - HEADER <= 255).then_some(())?;
    message.extend((kind as u16).to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    // RFC 6891, 6.1.2: the root, OPT, our buffer, no extended code, version 0, no flags, no options.
    message.push(0);
    for word in [OPT, UDP_BYTES, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    Some(message)
}

/// Reads the answer to `query`. `None`: it is not one, or it is malformed.
pub(super) fn answer(query: &[u8], message: &[u8], kind: Kind) -> Option<Answer> {
    let reader = Reader(message);
    let flags = reader.word(2)?;
    let response = flags & 0x8000 != 0 && flags & 0x7800 == 0;
    if reader.word(0)? != Reader(query).word(0)? || !response {
        return None;
    }
    let code = (flags & 0x000f) as u8;
    // RFC 5452, 9.1: the question must be ours. A refusal may come without it.
    if reader.word(4)? == 0 && !matches!(code, 0 | 3) {
        return Some(Answer::Failed(code));
    }
    let (asked, at) = Reader(query).name(HEADER)?;
    let (name, after) = reader.name(HEADER)?;
    let same =
        reader.word(4)? == 1 && name == asked && message.get(after..after + 4)? == query.get(at..at + 4)?;
    if !same {
        return None;
    }
    if flags & 0x0200 != 0 {
        return Some(Answer::Truncated);
    }
    if !matches!(code, 0 | 3) {
        return Some(Answer::Failed(code));
    }
    let (records, at) = reader.records(after + 4, reader.word(6)?)?;
    let found = addresses(&reader, &records, name, kind)?;
    if !found.is_empty() {
        return Some(Answer::Addresses(found));
    }
    let (authority, _) = reader.records(at, reader.word(8)?)?;
    let negative = authority
        .iter()
        .find(|record| record.kind == SOA)
        .and_then(|record| {
            // The last word of the record is the shortest time to live of the zone.
            let least = reader.long(record.end.checked_sub(4).filter(|&at| at >= record.data)?)?;
            Some(seconds(record.ttl.min(least)))
        });
    Some(Answer::None(negative))
}

/// The addresses at the end of the aliases; each is good for no longer than any alias on the way.
fn addresses(
    reader: &Reader<'_>,
    records: &[Record],
    mut name: Vec<u8>,
    kind: Kind,
) -> Option<Vec<(IpAddr, Duration)>> {
    let mut ttl = MAX_TTL;
    for _ in 0..=MOST_ALIASES {
        let named = || records.iter().filter(|record| record.name == name);
        let mut found = Vec::new();
        for record in named().filter(|record| record.kind == kind as u16) {
            let data = reader.0.get(record.data..record.end)?;
            let address = match kind {
                Kind::A => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into(),
                Kind::Aaaa => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)),
            };
            found.push((address.to_canonical(), seconds(record.ttl.min(ttl))));
        }
        let Some(alias) = named()
            .find(|record| record.kind == CNAME)
            .filter(|_| found.is_empty())
        else {
            return Some(found);
        };
        ttl = ttl.min(alias.ttl);
        name = reader.name(alias.data)?.0;
    }
    Some(Vec::new())
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(if ttl > MAX_TTL { 0 } else { ttl.into() })
}

struct Record {
    name: Vec<u8>,
    kind: u16,
    ttl: u32,
    data: usize,
    end: usize,
}

struct Reader<'m>(&'m [u8]);

impl Reader<'_> {
    fn word(&self, at: usize) -> Option<u16> {
        let bytes = self.0.get(at..at.checked_add(2)?)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }

    fn long(&self, at: usize) -> Option<u32> {
        let bytes = self.0.get(at..at.checked_add(4)?)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    /// A name in lower case as it is on the wire, and where it ends. A pointer (RFC 1035, 4.1.4) must lead back, so that
    /// no name is endless.
    fn name(&self, mut at: usize) -> Option<(Vec<u8>, usize)> {
        let (mut name, mut end, mut limit) = (Vec::new(), None, at);
        loop {
            let length = *self.0.get(at)?;
            match length {
                0 => return Some((name, end.unwrap_or(at + 1))),
                1..64 => {
                    let next = at + 1 + usize::from(length);
                    name.extend(self.0.get(at..next)?.to_ascii_lowercase());
                    if name.len() > 255 {
                        return None;
                    }
                    at = next;
                }
                0xc0.. => {
                    let target = usize::from(self.word(at)? & 0x3fff);
                    if target >= limit {
                        return None;
                    }
                    end = end.or(Some(at + 2));
                    (at, limit) = (target, target);
                }
                _ => return None,
            }
        }
    }

    fn records(&self, mut at: usize, count: u16) -> Option<(Vec<Record>, usize)> {
        let count = usize::from(count);
        if count > MOST_RECORDS {
            return None;
        }
        let mut records = Vec::new();
        for _ in 0..count {
            let (name, fixed) = self.name(at)?;
            let data = fixed + 10;
            let end = data + usize::from(self.word(fixed + 8)?);
            self.0.get(data..end)?;
            if self.word(fixed + 2)? == CLASS_IN {
                records.push(Record {
                    name,
                    kind: self.word(fixed)?,
                    ttl: self.long(fixed + 4)?,
                    data,
                    end,
                });
            }
            at = end;
        }
        Some((records, at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer to `query`: header, its question, then records as (name, type, ttl, data).
    fn reply(
        query: &[u8],
        code: u16,
        answers: &[(&[u8], u16, u32, &[u8])],
        authority: &[(&[u8], u16, u32, &[u8])],
    ) -> Vec<u8> {
        let question = query.len() - 11;
        let mut message = query[..2].to_vec();
        for word in [0x8180 | code, 1, answers.len() as u16, authority.len() as u16, 0] {
            message.extend(word.to_be_bytes());
        }
        message.extend(&query[12..question]);
        for (name, kind, ttl, data) in answers.iter().chain(authority) {
            message.extend(*name);
            message.extend(kind.to_be_bytes());
            message.extend(1u16.to_be_bytes());
            message.extend(ttl.to_be_bytes());
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(*data);
        }
        message
    }

    const POINTER: &[u8] = &[0xc0, 12];

    #[test]
    fn addresses_with_their_time() {
        let asked = query(7, "www.Example.org.", Kind::A).expect("a name");
        let message = reply(
            &asked,
            0,
            &[
                (POINTER, 1, 300, &[192, 0, 2, 1]),
                (POINTER, 1, 60, &[192, 0, 2, 2]),
            ],
            &[],
        );
        let Some(Answer::Addresses(found)) = answer(&asked, &message, Kind::A) else {
            panic!("no addresses")
        };
        assert_eq!(
            found[1],
            ("192.0.2.2".parse().expect("an address"), Duration::from_secs(60))
        );
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn aliases_are_followed_and_shorten_the_time() {
        let asked = query(7, "www.example.org", Kind::Aaaa).expect("a name");
        let alias = b"\x03cdn\x07example\x03net\x00";
        let address = "2001:db8::1".parse::<Ipv6Addr>().expect("an address").octets();
        let records: &[(&[u8], u16, u32, &[u8])] = &[
            (b"\x05other\x00", 28, 9, &[0; 16]),
            (b"\x03CDN\x07example\x03net\x00", 28, 300, &address),
            (POINTER, 5, 20, alias),
        ];
        let found = answer(&asked, &reply(&asked, 0, records, &[]), Kind::Aaaa);
        let expected = vec![(
            "2001:db8::1".parse().expect("an address"),
            Duration::from_secs(20),
        )];
        assert_eq!(found, Some(Answer::Addresses(expected)));
        let circle = reply(&asked, 0, &[(POINTER, 5, 20, POINTER)], &[]);
        assert_eq!(answer(&asked, &circle, Kind::Aaaa), Some(Answer::None(None)));
    }

    #[test]
    fn refusals_and_absence() {
        let asked = query(7, "www.example.org", Kind::A).expect("a name");
        let mut soa = b"\x00\x00".to_vec();
        soa.extend([0; 16]);
        soa.extend(90u32.to_be_bytes());
        let absent = reply(&asked, 3, &[], &[(b"\x03org\x00", 6, 900, &soa)]);
        assert_eq!(
            answer(&asked, &absent, Kind::A),
            Some(Answer::None(Some(Duration::from_secs(90))))
        );
        assert_eq!(
            answer(&asked, &reply(&asked, 2, &[], &[]), Kind::A),
            Some(Answer::Failed(2))
        );
        let mut cut = reply(&asked, 0, &[], &[]);
        cut[2] |= 2;
        assert_eq!(answer(&asked, &cut, Kind::A), Some(Answer::Truncated));
    }

    #[test]
    fn answers_to_other_questions_do_not_count() {
        let asked = query(7, "www.example.org", Kind::A).expect("a name");
        for other in [
            query(8, "www.example.org", Kind::A),
            query(7, "www.example.com", Kind::A),
            query(7, "www.example.org", Kind::Aaaa),
        ] {
            let other = other.expect("a name");
            let message = reply(&other, 0, &[(POINTER, 1, 300, &[192, 0, 2, 1])], &[]);
            assert_eq!(answer(&asked, &message, Kind::A), None);
        }
        assert_eq!(answer(&asked, &asked, Kind::A), None, "a question is no answer");
        assert_eq!(query(7, "a..b", Kind::A), None);
        assert_eq!(query(7, &"a.".repeat(200), Kind::A), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let asked = query(0, "www.example.org", Kind::A).expect("a name");
            let _ = answer(&asked, &bytes, Kind::A);
            let mut message = reply(&asked, 0, &[(POINTER, 1, 300, &[192, 0, 2, 1]), (POINTER, 5, 1, POINTER)], &[]);
            for (at, byte) in bytes.iter().enumerate().step_by(7) {
                let at = at % message.len();
                message[at] ^= byte;
            }
            message[..2].copy_from_slice(&asked[..2]);
            let _ = answer(&asked, &message, Kind::A);
        }
    }
}
