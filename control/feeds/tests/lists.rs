//! Lists of every format, whole, broken and hostile.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulkhead_feeds::{Entry, Format, List, ListError, Rules, read};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

/// 2026-11-22
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_305_600)
}

fn rules() -> Rules {
    Rules {
        format: Format::Auto,
        keys: Vec::new(),
        max_entries: 1_000,
        max_bytes: 1 << 20,
        allow_default_route: false,
    }
}

fn keyed(keys: &[&str]) -> Rules {
    Rules {
        keys: keys.iter().map(|&key| key.to_owned()).collect(),
        ..rules()
    }
}

fn good(text: impl AsRef<[u8]>, rules: &Rules) -> List {
    read(text.as_ref(), rules, now()).expect("a good list")
}

fn prefixes(text: impl AsRef<[u8]>, rules: &Rules) -> String {
    let shown: Vec<_> = good(text, rules)
        .prefixes
        .iter()
        .map(ToString::to_string)
        .collect();
    shown.join(" ")
}

fn refusal(text: impl AsRef<[u8]>, rules: &Rules) -> String {
    read(text.as_ref(), rules, now())
        .expect_err("a refusal")
        .to_string()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).expect("a vector");
    encoder.finish().expect("a vector")
}

/// A tar of regular files, as POSIX says: written by other code than reads it.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(*content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.extend([0; 1024]);
    archive
}

#[test]
fn lines_of_every_vendor_at_once() {
    let text = "; Spamhaus DROP List 2026/11/22\n1.10.16.0/20 ; SBL256894\n# FireHOL\r\n192.0.2.7\r\n\
                // PAN-OS\n198.51.100.0-198.51.100.3 // four\n172.200.1.4/16\n\n2001:db8::/32 text\n192.0.2.7\n";
    let list = good(text, &rules());
    assert_eq!((list.good, list.bad), (6, 0));
    assert_eq!(
        prefixes(text, &rules()),
        "1.10.16.0/20 172.200.0.0/16 192.0.2.7/32 198.51.100.0/30 2001:db8::/32"
    );
    assert_eq!(prefixes("", &rules()), "", "an empty list is a list");
    assert_eq!(prefixes("192.0.2.7", &rules()), "192.0.2.7/32", "no line end");
    let latin = good(b"192.0.2.7 # caf\xe9\n", &rules());
    assert_eq!((latin.good, latin.bad), (1, 0));
}

#[test]
fn bad_lines_are_counted_and_named_until_they_are_too_many() {
    let mut text = "192.0.2.1\n".repeat(3) + "bad\x1b.example\n";
    let list = good(&text, &rules());
    assert_eq!((list.good, list.bad, list.prefixes.len()), (3, 1, 1));
    assert_eq!(
        list.examples[0].to_string(),
        "entry 4: \"bad .example\" is not an address"
    );
    text += "worse\n";
    assert_eq!(
        refusal(&text, &rules()),
        "2 of 5 entries are bad, more than one in 4; entry 4: \"bad .example\" is not an address"
    );
    assert_eq!(
        refusal("<!DOCTYPE html>\n<p>Sorry\n", &rules()),
        "2 of 2 entries are bad, more than one in 4; entry 1: \"<!DOCTYPE html>\" is not an address"
    );
    let long = format!(
        "192.0.2.1\n192.0.2.2\n192.0.2.3\n{}\n192.0.2.4\n",
        "x".repeat(10_000)
    );
    let list = good(&long, &rules());
    assert_eq!((list.good, list.bad, list.examples[0].place), (4, 1, 4));
    assert_eq!(list.examples[0].text.len(), 80);
}

#[test]
fn everyone_is_refused_unless_meant() {
    let meant = Rules {
        allow_default_route: true,
        ..rules()
    };
    for text in [
        "0.0.0.0/0",
        "192.0.2.1\n::/0",
        "0.0.0.0-255.255.255.255",
        "0.0.0.0/1\n128.0.0.0/1",
    ] {
        let refused = refusal(text, &rules());
        assert!(
            refused.starts_with("the list covers every address by "),
            "{refused}"
        );
        good(text, &meant);
    }
    good("0.0.0.0/1\n128.0.0.0/2", &rules());
}

#[test]
fn the_cap_counts_what_differs() {
    let few = Rules {
        max_entries: 3,
        ..rules()
    };
    assert_eq!(good("192.0.2.1\n".repeat(100_000), &few).prefixes.len(), 1);
    let refused = refusal("192.0.2.1\n192.0.2.2\n192.0.2.3\n192.0.2.4\n", &few);
    assert!(
        refused.starts_with("the list has more than 3 entries"),
        "{refused}"
    );
    assert!(refusal("10.0.0.1-10.0.0.30", &few).contains("more than 3 entries"));
    let many: String = (0..200_000u32)
        .map(|n| format!("{}\n", Ipv4Addr::from_bits(n)))
        .collect();
    let large = Rules {
        max_bytes: 1 << 24,
        ..few
    };
    assert!(matches!(
        read(many.as_bytes(), &large, now()),
        Err(ListError::TooMany(3))
    ));
}

#[test]
fn json_along_keys() {
    let text = r#"{"syncToken": "1", "prefixes": [{"ip_prefix": "192.0.2.0/24", "region": "x"}, {"ip_prefix": null}],
                   "ipv6_prefixes": [{"ipv6_prefix": "2001:db8::/32"}], "other": {"deep": {"a": "198.51.100.7"}}}"#;
    assert_eq!(prefixes(text, &keyed(&["prefixes.ip_prefix"])), "192.0.2.0/24");
    assert_eq!(
        prefixes(text, &keyed(&["prefixes.ip_prefix", "ipv6_prefixes.ipv6_prefix"])),
        "192.0.2.0/24 2001:db8::/32"
    );
    assert_eq!(prefixes(text, &keyed(&["other.*.a"])), "198.51.100.7/32");
    assert_eq!(
        refusal(text, &keyed(&["prefixes.cidr"])),
        "nothing in the list is at prefixes.cidr; correct key"
    );
    assert_eq!(
        prefixes(r#"["192.0.2.1", ["192.0.2.2 # note"]]"#, &rules()),
        "192.0.2.1/32 192.0.2.2/32"
    );
    assert_eq!(
        prefixes(r#"{"list": []}"#, &keyed(&["list"])),
        "",
        "empty, but there"
    );
    assert!(refusal(r#"{"list": ["192.0.2.1""#, &keyed(&["list"])).starts_with("the list is not JSON: EOF"));
    assert!(refusal("[{}]", &rules()).contains("give a key"));
    let json = Rules {
        format: Format::Json,
        ..rules()
    };
    assert_eq!(refusal(" \n", &json), "the list is not JSON: it is empty");
    let wrong = good(
        r#"{"l": ["192.0.2.1", "192.0.2.2", "192.0.2.3", 7]}"#,
        &keyed(&["l"]),
    );
    assert_eq!(wrong.examples[0].to_string(), "entry 4: \"7\" is not text");
}

#[test]
fn a_string_of_json_has_an_end() {
    let long = Rules {
        max_bytes: 8 << 20,
        ..keyed(&["a"])
    };
    let stix = Rules {
        keys: Vec::new(),
        ..long.clone()
    };
    // Escaped quotes do not end a string, two backslashes and a quote do.
    let sound = format!(
        r#"{{"b": "{}", "c\\": "\\", "a": "192.0.2.1"}}"#,
        r#"\""#.repeat(500_000)
    );
    assert_eq!(prefixes(&sound, &long), "192.0.2.1/32");
    let endless = r#"\""#.repeat(600_000);
    for (text, rules) in [
        (format!(r#"{{"a": "{endless}"}}"#), &long),
        (format!(r#"{{"b": ["{endless}"], "a": "192.0.2.1"}}"#), &long),
        (format!(r#"{{"{endless}": 1}}"#), &long),
        (format!(r#"{{"type": "bundle", "{endless}": 1}}"#), &stix),
        (
            format!(r#"{{"type": "bundle", "objects": [{{"pattern": "{endless}"}}]}}"#),
            &stix,
        ),
    ] {
        let refused = refusal(&text, rules);
        assert!(
            refused.ends_with("a string is longer than 1048576 bytes"),
            "{refused}"
        );
    }
    // What is no text is nothing, whatever it is.
    let odd = r#"{"type": "bundle", "more": [{}], "objects": [{"type": "indicator", "revoked": null, "valid_from": {"a": [1]},
        "valid_until": -1.5, "pattern": "[ipv4-addr:value = '192.0.2.1']"}, {"type": 7, "pattern": ["x"]}]}"#;
    assert_eq!(prefixes(odd, &stix), "192.0.2.1/32");
}

#[test]
fn ndjson_is_one_document_after_the_other() {
    // Spamhaus DROP as JSON ends in a line about itself.
    let text = "{\"cidr\":\"1.10.16.0/20\",\"sblid\":\"SBL256894\"}\n{\"cidr\":\"2.56.192.0/22\"}\n\
                {\"type\":\"metadata\",\"records\":2}\n";
    assert_eq!(prefixes(text, &keyed(&["cidr"])), "1.10.16.0/20 2.56.192.0/22");
    assert!(refusal(format!("{text}{{\"cidr\":\"3"), &keyed(&["cidr"])).contains("EOF"));
}

#[test]
fn indicators_of_a_bundle() {
    let indicator = |pattern: &str, more: &str| {
        format!(r#"{{"type":"indicator","pattern_type":"stix","pattern":"{pattern}"{more}}}"#)
    };
    let objects = [
        r#"{"type":"identity","name":"someone","pattern":{"odd":1}}"#.to_owned(),
        r#"{"type":"ipv4-addr","value":"203.0.113.9"}"#.to_owned(),
        indicator(
            "[ipv4-addr:value = '198.51.100.1']",
            r#","valid_from":"2026-01-01T00:00:00Z""#,
        ),
        indicator("[ipv6-addr:value ISSUBSET '2001:db8::/48']", ""),
        indicator("[ipv4-addr:value = '198.51.100.2']", r#","revoked":true"#),
        indicator(
            "[ipv4-addr:value = '198.51.100.3']",
            r#","valid_until":"2026-11-21T00:00:00Z""#,
        ),
        indicator(
            "[ipv4-addr:value = '198.51.100.4']",
            r#","valid_from":"2026-11-23T00:00:00Z""#,
        ),
        indicator("[ipv4-addr:value = '198.51.100.5' AND file:size = 1]", ""),
        indicator("alert tcp any", r#","pattern_type":"snort""#).replacen(r#""pattern_type":"stix","#, "", 1),
    ];
    let bundle = format!(
        r#"{{"type":"bundle","id":"bundle--1","objects":[{}]}}"#,
        objects.join(",")
    );
    let list = good(&bundle, &rules());
    assert_eq!(prefixes(&bundle, &rules()), "198.51.100.1/32 2001:db8::/48");
    assert_eq!((list.good, list.bad, list.skipped), (2, 0, 5));
    assert_eq!(prefixes(r#"{"type":"bundle","id":"bundle--2"}"#, &rules()), "");
    for (text, part) in [
        (r#"{"type":"report","objects":[]}"#, "type is not bundle"),
        (r#"{"more":true,"objects":[]}"#, "more pages"),
        (r#"{"prefixes":["192.0.2.1"]}"#, "give a key"),
        (r#"{"type":"bundle","objects":[{"type":"indicator""#, "EOF"),
    ] {
        let refused = refusal(text, &rules());
        assert!(
            refused.starts_with("the list is not a STIX bundle: ") && refused.contains(part),
            "{refused}"
        );
    }
}

#[test]
fn archives_of_lists() {
    let files: &[(&str, &[u8])] = &[
        ("feed/one.txt", b"192.0.2.1\n"),
        ("feed/._one.txt", b"\x00\x05\x16\x07 of a file manager\n"),
        ("feed/two.json", br#"["192.0.2.2"]"#),
        ("feed/empty", b""),
    ];
    let archive = tar(files);
    assert_eq!(prefixes(gzip(&archive), &rules()), "192.0.2.1/32 192.0.2.2/32");
    assert_eq!(prefixes(gzip(b"192.0.2.3\n"), &rules()), "192.0.2.3/32");
    let strict = Rules {
        format: Format::Tgz,
        ..rules()
    };
    good(gzip(&archive), &strict);
    assert!(refusal(gzip(b"192.0.2.3\n"), &strict).contains("no tar within"));
    assert!(refusal(b"192.0.2.3\n", &strict).contains("does not begin like gzip"));
    let cut = gzip(&archive);
    assert!(refusal(&cut[..cut.len() - 12], &rules()).starts_with("the list breaks off"));
    let mut damaged = archive.clone();
    damaged[1024] ^= 1;
    assert!(refusal(gzip(&damaged), &rules()).contains("a header in it is damaged"));
    assert!(refusal(gzip(&archive[..512 + 4]), &rules()).contains("breaks off"));
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let bomb = gzip(&b"192.0.2.1\n".repeat(200_000));
    assert!(bomb.len() < 20_000);
    assert!(matches!(
        read(&*bomb, &rules(), now()),
        Err(ListError::TooLarge(1_048_576))
    ));
    assert!(matches!(
        read(&*b"192.0.2.1\n".repeat(200_000), &rules(), now()),
        Err(ListError::TooLarge(1_048_576))
    ));
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// Every prefix begins where the one before it ended, the first at the first address, the last ends at the last.
fn exact(first: IpAddr, last: IpAddr) {
    let Ok(entry) = Entry::of_value(&format!("{first}-{last}")) else {
        panic!("{first}-{last} is not a range")
    };
    let (mut next, width) = (Some(bits(first)), if first.is_ipv4() { 32 } else { 128 });
    for prefix in entry.prefixes() {
        let size = width - u32::from(prefix.length);
        let begins = bits(prefix.address);
        assert_eq!(Some(begins), next);
        assert!(
            size == 128 || begins.trailing_zeros() >= size,
            "{prefix} has host bits"
        );
        let ends = begins
            + 1u128
                .checked_shl(size)
                .map_or(u128::MAX, |addresses| addresses - 1);
        assert!(ends <= bits(last));
        next = ends.checked_add(1);
    }
    assert_eq!(next, bits(last).checked_add(1));
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2_000), packed: bool, format in 0..5usize) {
        let format = [Format::Auto, Format::Text, Format::Json, Format::Stix, Format::Tgz][format];
        let rules = Rules { format, keys: vec!["a.*".to_owned(), "b".to_owned()], ..rules() };
        let bytes = if packed { gzip(&bytes) } else { bytes };
        let _ = read(&*bytes, &rules, now());
    }

    #[test]
    fn no_line_panics(line in "\\PC{0,80}") {
        let _ = Entry::of_line(&line);
    }

    #[test]
    fn nothing_like_a_list_panics(text in "[0-9a-f.:/,;#\\-\\[\\]{}\"'()OR=IN \n]{0,200}") {
        for format in [Format::Auto, Format::Text, Format::Json, Format::Stix] {
            let _ = read(text.as_bytes(), &Rules { format, ..rules() }, now());
        }
        let pattern = serde_json::json!({"type": "bundle", "objects": [{"type": "indicator", "pattern": text}]});
        let _ = read(pattern.to_string().as_bytes(), &rules(), now());
    }

    #[test]
    fn damaged_archives_do_not_panic(at in 0usize..2_000, with: u8) {
        let mut archive = tar(&[("a", b"192.0.2.1\n"), ("b", b"[\"192.0.2.2\"]")]);
        if let Some(byte) = archive.get_mut(at) {
            *byte = with;
        }
        let _ = read(&*gzip(&archive), &rules(), now());
        let mut packed = gzip(&archive);
        if let Some(byte) = packed.get_mut(at) {
            *byte = with;
        }
        let _ = read(&*packed, &rules(), now());
    }

    #[test]
    fn ranges_are_exact(a: u32, b: u32, c: u128, d: u128, near in 0u32..2_000) {
        exact(Ipv4Addr::from_bits(a.min(b)).into(), Ipv4Addr::from_bits(a.max(b)).into());
        exact(Ipv4Addr::from_bits(a.saturating_sub(near)).into(), Ipv4Addr::from_bits(a).into());
        // Mapped addresses become IPv4 ones, so a range must not begin or end among them.
        let (c, d) = (c | 1 << 127, d | 1 << 127);
        exact(Ipv6Addr::from_bits(c.min(d)).into(), Ipv6Addr::from_bits(c.max(d)).into());
    }

    #[test]
    fn what_is_written_is_read(addresses in proptest::collection::btree_set(any::<u32>(), 0..200)) {
        let text: String = addresses.iter().map(|&bits| format!("{} # x\n", Ipv4Addr::from_bits(bits))).collect();
        let list = read(text.as_bytes(), &rules(), now()).expect("a good list");
        let found: Vec<u128> = list.prefixes.iter().map(|prefix| bits(prefix.address)).collect();
        let expected: Vec<u128> = addresses.into_iter().map(u128::from).collect();
        prop_assert_eq!(found, expected);
    }
}
