//! Groups of groups, feeds and names: what they come to, and what is refused.

mod common;

use std::path::Path;
use std::time::Duration;

use bulkhead_config::{GroupId, ListFormat, Member, parse};
use common::{Case, check, spec};

#[test]
fn groups_contain_groups_and_leave_groups_out() {
    let text = spec(
        "  addresses:\n    - { name: all, members: [late, 10.0.0.1, late, early], except: [10.0.0.2, early] }\n    - { name: late, members: [10.1.0.0/16] }\n    - { name: early, members: [] }\n",
    );
    let config = parse("f", text).expect("a sound configuration").config;
    let all = &config.groups[0];
    assert_eq!(
        all.groups,
        [GroupId(1), GroupId(2)],
        "each once, in the order of the document"
    );
    assert_eq!(all.except_groups, [GroupId(2)]);
    assert_eq!(all.members, [Member::Host("10.0.0.1".parse().unwrap())]);
    assert_eq!(all.except, [Member::Host("10.0.0.2".parse().unwrap())]);
}

#[test]
fn a_feed_has_defaults_and_keeps_what_was_written() {
    let text = spec(
        "  addresses:\n    - { name: a, feed: { url: \"https://feeds.example/a\" } }\n    - name: b\n      members: [10.0.0.1]\n      dns: [WWW.Example.org., www.example.org]\n      feed:\n        url: https://feeds.example:8443/b?x=1\n        format: ndjson\n        key: [a.b, c.*]\n        interval: 30s\n        hold: 24h\n        maxEntries: 7\n        tokenFile: /t\n        caFile: /ca\n        clientCertificate: { certificateFile: /c, keyFile: /k }\n        allowDefaultRoute: true\n    - { name: c, feed: { url: \"http://feeds.example/\", allowHttp: true } }\n    - { name: d, feed: { url: \"file:///var/list\" } }\n",
    );
    let config = parse("f", text).expect("a sound configuration").config;
    let a = config.groups[0].feed.as_ref().expect("a feed");
    assert_eq!(
        (a.format, a.interval, a.hold),
        (ListFormat::Auto, Duration::from_secs(300), None)
    );
    assert_eq!((a.max_entries, a.allow_default_route), (1_000_000, false));
    let b = config.groups[1].feed.as_ref().expect("a feed");
    assert_eq!(
        (b.format, b.keys.join(" ")),
        (ListFormat::Ndjson, "a.b c.*".to_owned())
    );
    assert_eq!(
        (b.interval, b.hold),
        (Duration::from_secs(30), Some(Duration::from_secs(86_400)))
    );
    assert_eq!(b.token_file.as_deref(), Some(Path::new("/t")));
    assert_eq!(
        b.client_certificate.as_ref().map(|own| own.key_file.as_path()),
        Some(Path::new("/k"))
    );
    assert!(b.allow_default_route);
    assert_eq!(config.groups[1].dns, ["www.example.org"]);
    assert!(config.groups[2].feed.is_some() && config.groups[3].feed.is_some());
}

#[test]
fn circles_are_named() {
    check(&[
        Case::spec(
            "itself",
            "  addresses:\n    - { name: a, members: [10.0.0.1, a] }\n",
            &["6:38: address group \"a\" contains itself: a -> a; take one of them out of another"],
        ),
        Case::spec(
            "by way of others, and by except",
            "  addresses:\n    - { name: top, members: [a] }\n    - { name: a, members: [b] }\n    - { name: b, members: [], except: [c] }\n    - { name: c, members: [a, top2] }\n    - { name: top2, members: [] }\n",
            &["9:28: address group \"a\" contains itself: a -> b -> c -> a; take one of them out of another"],
        ),
        Case::spec(
            "two ways to one group are no circle",
            "  addresses:\n    - { name: a, members: [b, c] }\n    - { name: b, members: [d] }\n    - { name: c, members: [d] }\n    - { name: d, members: [] }\n",
            &[],
        ),
        Case::spec(
            "unknown",
            "  addresses:\n    - { name: partners, members: [] }\n    - { name: a, members: [partnes, nobody], except: [www.example.org] }\n",
            &[
                "7:28: address group \"a\" names address group \"partnes\", which does not exist; did you mean \"partners\"?",
                "7:37: address group \"a\" names address group \"nobody\", which does not exist; define it under spec.addresses, or write an address",
                "7:55: address group \"a\" names address group \"www.example.org\", which does not exist; names of hosts go under `dns`",
            ],
        ),
    ]);
}

#[test]
fn a_long_chain_needs_no_stack() {
    let mut text = spec("  addresses:\n");
    for number in 0..20_000 {
        text += &format!("    - {{ name: g{number}, members: [g{}] }}\n", number + 1);
    }
    text += "    - { name: g20000, members: [] }\n";
    assert_eq!(
        parse("f", text)
            .expect("a sound configuration")
            .config
            .groups
            .len(),
        20_001
    );
}

#[test]
fn feeds_that_make_no_sense() {
    let feed = |fields: &str| format!("  addresses:\n    - {{ name: a, feed: {{ {fields} }} }}\n");
    let refused = |name: &str, fields: &str, expected: &[&str]| Case::spec(name, &feed(fields), expected);
    check(&[
        refused(
            "no scheme",
            "url: feeds.example/list",
            &[
                "6:31: the url of the feed has no scheme; write the whole address, such as https://feeds.example/list.txt",
            ],
        ),
        refused(
            "other scheme",
            "url: \"ftp://feeds.example/list\"",
            &["6:31: a feed cannot be fetched by ftp; it can be https, http with `allowHttp`, or file"],
        ),
        refused(
            "clear text",
            "url: \"http://feeds.example/list\"",
            &[
                "6:31: the feed of address group \"a\" is fetched without encryption; use https, or set `allowHttp: true` if anybody on the way may write the list",
            ],
        ),
        refused(
            "password",
            "url: \"https://me:secret@feeds.example/list\"",
            &[
                "6:31: the url of the feed has a name or password in it; put a token into a file and name it by `tokenFile`",
            ],
        ),
        refused(
            "no host",
            "url: \"https:///list\"",
            &[
                "6:31: the url of the feed has no host; write the whole address, such as https://feeds.example/list.txt",
            ],
        ),
        refused(
            "space",
            "url: \"https://feeds.example/a list\"",
            &[
                "6:31: the url of the feed has characters that no address has; write other characters than ASCII as %xx",
            ],
        ),
        refused(
            "relative file",
            "url: \"file://list\"",
            &["6:31: \"file://list\" names no file from the root; write file:///path/of/the/list"],
        ),
        refused(
            "secrets in the clear",
            "url: \"http://feeds.example/\", allowHttp: true, tokenFile: /t",
            &[
                "6:73: `tokenFile` is for https alone, and this feed is not; use an https address, or leave it out",
            ],
        ),
        refused(
            "relative token",
            "url: \"https://feeds.example/\", tokenFile: t",
            &[
                "6:68: file \"t\" is not named from the root; write the whole path, such as /etc/bulkhead/token",
            ],
        ),
        refused(
            "key of lines",
            "url: \"https://feeds.example/\", format: text, key: a",
            &["6:71: `key` is for JSON alone; leave it out, or write `format: json`"],
        ),
        refused(
            "empty key",
            "url: \"https://feeds.example/\", key: a..b",
            &["6:57: `key` has an empty name; write names joined by dots, such as `prefixes.ip_prefix`"],
        ),
        refused(
            "numbers",
            "url: \"https://feeds.example/\", interval: 10ms, hold: 1500ms, maxEntries: 0",
            &[
                "6:67: interval cannot be 10ms; it can be 1s to 7d",
                "6:79: hold cannot be 1500ms; it can be 1s to 365d, in whole seconds",
                "6:99: maxEntries cannot be 0; it can be 1 to 2000000",
            ],
        ),
        Case::spec(
            "names",
            "  addresses:\n    - { name: a, dns: [] }\n    - { name: b, dns: [10.0.0.1, \"*.example.org\", a..b] }\n",
            &[
                "6:18: `dns` of address group \"a\" is empty; write `dns: [www.example.org]`, or leave it out",
                "7:24: \"10.0.0.1\" is not a name that DNS has addresses for; write a whole name such as www.example.org; addresses go under `members`",
                "7:34: \"*.example.org\" is not a name that DNS has addresses for; write a whole name such as www.example.org; addresses go under `members`",
                "7:51: \"a..b\" is not a name that DNS has addresses for; write a whole name such as www.example.org; addresses go under `members`",
            ],
        ),
    ]);
}

#[test]
fn an_object_is_named_by_its_namespace_and_its_name() {
    let text = spec(
        "  addresses:\n    - { name: a, addressGroup: shop/partners.eu }\n    - { name: b, members: [10.0.0.1], addressGroup: shop/b }\n",
    );
    let config = parse("f", text).expect("a sound configuration").config;
    let objects: Vec<Option<&str>> = config
        .groups
        .iter()
        .map(|group| group.address_group.as_deref())
        .collect();
    assert_eq!(objects, [Some("shop/partners.eu"), Some("shop/b")]);
    check(&[Case::spec(
        "no namespace",
        "  addresses:\n    - { name: a, addressGroup: partners }\n    - { name: b, addressGroup: Shop/b }\n",
        &[
            "6:32: \"partners\" is not an object AddressGroup; write its namespace and name: default/partners",
            "7:32: \"Shop/b\" is not an object AddressGroup; write its namespace and name: default/partners",
        ],
    )]);
}

#[test]
fn pods_are_selected_and_what_the_api_would_refuse_is_refused_with_its_place() {
    let text = spec(
        "  addresses:\n    - { name: pay, pods: { selector: app=pay, namespaces: [b, a, b], network: default/app-net } }\n    - { name: web, members: [10.0.0.1], pods: { selector: \"tier in (web)\", namespaceSelector: team=x } }\n",
    );
    let config = parse("f", text).expect("a sound configuration").config;
    let pay = config.groups[0].pods.as_ref().expect("pods");
    assert_eq!(
        (&*pay.selector, pay.namespaces.join(" "), pay.network.as_deref()),
        ("app=pay", "a b".to_owned(), Some("default/app-net"))
    );
    let web = config.groups[1].pods.as_ref().expect("pods");
    assert_eq!(
        (web.namespace_selector.as_deref(), web.network.as_deref()),
        (Some("team=x"), None)
    );
    check(&[
        Case::spec(
            "selector",
            "  addresses:\n    - { name: a, pods: { selector: \"app=a b\" } }\n",
            &[
                "6:36: \"app=a b\" is not a label requirement; write key=value, key!=value, key, !key, key in (a,b) or key notin (a,b), separated by commas",
            ],
        ),
        Case::spec(
            "every pod",
            "  addresses:\n    - { name: a, pods: { selector: \"\" } }\n",
            &[
                "6:36: the selector of address group \"a\" selects every pod; write labels such as app=payments, or `!nobody-has-this` if every pod is meant",
            ],
        ),
        Case::spec(
            "namespaces and networks",
            "  addresses:\n    - { name: a, pods: { selector: app, namespaces: [A], namespaceSelector: b, network: net } }\n",
            &[
                "6:54: \"A\" cannot be the name of a namespace; a namespace has lower case letters, digits and hyphens",
                "6:77: `namespaces` and `namespaceSelector` both say which namespaces; leave one of them out",
                "6:89: \"net\" is not a network attachment; write its namespace and name: default/app-net",
            ],
        ),
    ]);
}
