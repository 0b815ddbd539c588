//! Fetching from a real server over real TLS, and from servers that are not what they should be.

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bulkhead_feeds::fetch::{FetchError, Fetched, Patience, Source, Stamp, fetch};
use bulkhead_feeds::names::System;
use bulkhead_feeds::{Format, List, Rules};
use common::{Act, Authority, Server, answer};

const LIST: &str = "192.0.2.1\n192.0.2.0/28\n";
const NAME: &str = "feeds.test";

struct Bench {
    directory: tempfile::TempDir,
    system: System,
    authority: Authority,
}

impl Bench {
    /// An authority, and a machine on which the servers are at this one.
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let system = System {
            hosts: directory.path().join("hosts"),
            resolv_conf: directory.path().join("resolv.conf"),
            port: 1,
        };
        std::fs::write(&system.hosts, "127.0.0.1 feeds.test other.test\n").expect("a file");
        Self {
            directory,
            system,
            authority: Authority::new("test authority"),
        }
    }

    fn server(&self, behaviour: impl Fn(&str) -> Act + Send + Sync + 'static) -> Server {
        let identity = self.authority.identity(NAME, 2_090);
        Server::start(([127, 0, 0, 1], 0).into(), &identity, None, behaviour)
    }

    fn source(&self, server: &Server) -> Source {
        Source {
            url: format!("https://{NAME}:{}/list?key=secret", server.address.port()),
            token_file: None,
            ca_file: Some(self.authority.file(self.directory.path())),
            client_certificate: None,
            max_body_bytes: 10_000,
            patience: Patience {
                connect: Duration::from_secs(5),
                answer: Duration::from_secs(5),
                whole: Duration::from_secs(10),
            },
        }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path
    }

    fn fetch(&self, source: &Source, stamp: &Stamp) -> Result<Fetched, FetchError> {
        let rules = Rules {
            format: Format::Auto,
            keys: Vec::new(),
            max_entries: 100,
            max_bytes: 1 << 20,
            allow_default_route: false,
        };
        fetch(source, stamp, &rules, &self.system, SystemTime::now())
    }

    fn list(&self, source: &Source) -> (List, Stamp) {
        match self.fetch(source, &Stamp::default()) {
            Ok(Fetched::New(list, stamp)) => (list, stamp),
            other => panic!("no list: {other:?}"),
        }
    }

    /// Why a fetch fails; nothing secret is in it.
    fn error(&self, source: &Source) -> String {
        let error = self
            .fetch(source, &Stamp::default())
            .expect_err("a failure")
            .to_string();
        assert!(!error.contains("secret"), "{error}");
        error
    }
}

#[test]
fn a_list_arrives_over_verified_tls() {
    let bench = Bench::new();
    let server = bench.server(|_| answer("200 OK", LIST));
    let (list, stamp) = bench.list(&bench.source(&server));
    assert_eq!((list.prefixes.len(), list.bad), (2, 0));
    assert_eq!(stamp, Stamp::default());
    let request = &server.requests()[0];
    assert!(
        request.starts_with("GET /list?key=secret HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(!request.to_lowercase().contains("authorization"), "{request}");
}

#[test]
fn certificates_are_verified() {
    let bench = Bench::new();
    let server = bench.server(|_| answer("200 OK", LIST));
    let stranger = tempfile::tempdir().expect("a directory");
    let source = Source {
        ca_file: Some(Authority::new("a stranger").file(stranger.path())),
        ..bench.source(&server)
    };
    assert_eq!(
        bench.error(&source),
        "TLS: invalid peer certificate: UnknownIssuer"
    );
    let mozilla = Source {
        ca_file: None,
        ..bench.source(&server)
    };
    assert_eq!(
        bench.error(&mozilla),
        "TLS: invalid peer certificate: UnknownIssuer"
    );
    let other_name = Source {
        url: bench.source(&server).url.replace(NAME, "other.test"),
        ..bench.source(&server)
    };
    let error = bench.error(&other_name);
    assert!(
        error.starts_with("TLS: invalid peer certificate: certificate not valid for name"),
        "{error}"
    );
    let expired = bench.authority.identity(NAME, 2_020);
    let server = Server::start(([127, 0, 0, 1], 0).into(), &expired, None, |_| {
        answer("200 OK", LIST)
    });
    let error = bench.error(&bench.source(&server));
    assert!(
        error.starts_with("TLS: invalid peer certificate: certificate expired"),
        "{error}"
    );
    assert!(
        server.requests().is_empty(),
        "nothing is asked of a server that nobody vouches for"
    );
}

#[test]
fn a_server_may_want_a_certificate_or_a_token() {
    let bench = Bench::new();
    let identity = bench.authority.identity(NAME, 2_090);
    let clients = Authority::new("clients");
    let local = ([127, 0, 0, 1], 0).into();
    let server = Server::start(local, &identity, Some(&clients), |_| answer("200 OK", LIST));
    let error = bench.error(&bench.source(&server));
    assert!(
        error.starts_with("TLS: ") && error.contains("CertificateRequired"),
        "{error}"
    );
    let known = Source {
        client_certificate: Some(clients.identity("us", 2_090).files(bench.directory.path())),
        ..bench.source(&server)
    };
    assert_eq!(bench.list(&known).0.prefixes.len(), 2);

    let server = bench.server(|head| match head.contains("uthorization: Bearer s3cret\r\n") {
        true => answer("200 OK", LIST),
        false => answer("401 Unauthorized", "who are you?"),
    });
    assert_eq!(
        bench.error(&bench.source(&server)),
        "the server answered 401 (unauthorized); is the token right?"
    );
    let with = |content: &str| Source {
        token_file: Some(bench.file("token", content)),
        ..bench.source(&server)
    };
    assert_eq!(bench.list(&with("s3cret\n")).0.prefixes.len(), 2);
    for bad in ["", "two words", "line\r\nHost: x", "sécret"] {
        let error = bench.error(&with(bad));
        assert!(
            error.ends_with("token: is not a token: one word of ASCII characters is wanted"),
            "{error}"
        );
    }
    let absent = Source {
        token_file: Some("/nowhere/token".into()),
        ..bench.source(&server)
    };
    assert!(bench.error(&absent).starts_with("/nowhere/token: No such file"));
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    let bench = Bench::new();
    let server = bench.server(|head| {
        let known = head.to_lowercase().contains("if-none-match: \"v7\"\r\n")
            && head
                .to_lowercase()
                .contains("if-modified-since: sun, 22 nov 2026 21:00:00 gmt\r\n");
        match known {
            true => answer("304 Not Modified", ""),
            false => answer(
                "200 OK\r\nETag: \"v7\"\r\nLast-Modified: Sun, 22 Nov 2026 21:00:00 GMT",
                LIST,
            ),
        }
    });
    let source = bench.source(&server);
    let (_, stamp) = bench.list(&source);
    assert_eq!(
        bench.fetch(&source, &stamp).expect("an answer"),
        Fetched::Unchanged
    );
    assert_eq!(server.requests().len(), 2);
    let server = bench.server(|_| answer("304 Not Modified", ""));
    assert_eq!(
        bench.error(&bench.source(&server)),
        "the server answered 304",
        "nobody asked for that"
    );
}

#[test]
fn redirects_are_few_and_stay_encrypted() {
    let bench = Bench::new();
    let plain = Server::start_plain(([127, 0, 0, 1], 0).into(), |_| answer("200 OK", LIST));
    let to = format!(
        "302 Found\r\nLocation: http://127.0.0.1:{}/",
        plain.address.port()
    );
    let server = bench.server(move |_| answer(&to, ""));
    assert_eq!(
        bench.error(&bench.source(&server)),
        "the server redirects to an address without encryption"
    );
    assert!(plain.requests().is_empty());

    // On another server the token is nobody's business.
    let target = bench.server(|head| match head.to_lowercase().contains("authorization") {
        true => answer("500 Leaked", ""),
        false => answer("200 OK", LIST),
    });
    let to = format!(
        "307 Elsewhere\r\nLocation: https://{NAME}:{}/",
        target.address.port()
    );
    let server = bench.server(move |_| answer(&to, ""));
    let source = Source {
        token_file: Some(bench.file("token", "s3cret")),
        ..bench.source(&server)
    };
    assert_eq!(bench.list(&source).0.prefixes.len(), 2);

    let server = bench.server(|_| answer("302 Found\r\nLocation: /again", ""));
    assert_eq!(
        bench.error(&bench.source(&server)),
        "the server redirects more than 5 times"
    );
    assert_eq!(server.requests().len(), 6);
}

#[test]
fn too_much_too_slow_and_broken_off() {
    let bench = Bench::new();
    let server = bench.server(|_| answer("200 OK", "192.0.2.1\n".repeat(2_000)));
    assert_eq!(
        bench.error(&bench.source(&server)),
        "the list is larger than 10000 bytes"
    );
    let endless = |_: &str| {
        let chunk = format!("3e8\r\n{}\r\n", "192.0.2.1\n".repeat(100));
        Act::Send(
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
                chunk.repeat(50)
            )
            .into_bytes(),
        )
    };
    assert_eq!(
        bench.error(&bench.source(&bench.server(endless))),
        "the list is larger than 10000 bytes"
    );
    let head =
        |_: &str| Act::Send(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000)).into_bytes());
    bench.error(&bench.source(&bench.server(head)));

    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n192.0.2.1\n".to_vec();
    let cut = half.clone();
    let server = bench.server(move |_| Act::Send(cut.clone()));
    let error = bench.error(&bench.source(&server));
    assert!(!error.is_empty(), "half a list is no list");

    let impatient = |server: &Server| Source {
        patience: Patience {
            connect: Duration::from_secs(5),
            answer: Duration::from_millis(300),
            whole: Duration::from_millis(600),
        },
        ..bench.source(server)
    };
    let silent = bench.server(|_| Act::Stall(Vec::new(), Duration::from_secs(5)));
    let stalled = bench.server(move |_| Act::Stall(half.clone(), Duration::from_secs(5)));
    for server in [silent, stalled] {
        let began = Instant::now();
        assert_eq!(bench.error(&impatient(&server)), "the server takes too long");
        assert!(began.elapsed() < Duration::from_secs(3));
    }
}

#[test]
fn broken_then_recovered() {
    let bench = Bench::new();
    let turn = Arc::new(AtomicU32::new(0));
    let server = bench.server(move |_| match turn.fetch_add(1, Ordering::Relaxed) {
        0 => answer("503 Service Unavailable", ""),
        1 => answer("200 OK", "<html>we will be back</html>"),
        2 => answer("200 OK", "0.0.0.0/0"),
        _ => answer("200 OK", LIST),
    });
    let source = bench.source(&server);
    assert_eq!(bench.error(&source), "the server answered 503 (its own error)");
    assert!(bench.error(&source).starts_with("1 of 1 entries are bad"));
    assert!(bench.error(&source).starts_with("the list covers every address"));
    assert_eq!(bench.list(&source).0.prefixes.len(), 2);
    let gone = Source {
        url: source.url.replace(NAME, "nowhere.test"),
        ..source.clone()
    };
    let error = bench.error(&gone);
    assert!(
        error.starts_with("the name of the server has no address; no DNS server answers"),
        "{error}"
    );
    let closed = Source {
        url: format!("https://{NAME}:1/"),
        ..source
    };
    assert!(bench.error(&closed).contains("refused"));
}

#[test]
fn files_are_lists_too() {
    let bench = Bench::new();
    let path = bench.file("list", LIST);
    let source = Source {
        url: format!("file://{}", path.display()),
        ca_file: None,
        ..bench.source(&bench.server(|_| answer("200 OK", "")))
    };
    let (list, stamp) = bench.list(&source);
    assert_eq!(list.prefixes.len(), 2);
    assert_eq!(
        bench.fetch(&source, &stamp).expect("an answer"),
        Fetched::Unchanged
    );
    bench.file("list", "192.0.2.9\n");
    assert!(matches!(bench.fetch(&source, &stamp), Ok(Fetched::New(list, _)) if list.prefixes.len() == 1));
    bench.file("list", &"192.0.2.9\n".repeat(2_000));
    assert_eq!(bench.error(&source), "the list is larger than 10000 bytes");
    let device = Source {
        url: "file:///dev/zero".to_owned(),
        ..source
    };
    assert_eq!(bench.error(&device), "/dev/zero: is not a regular file");
}
