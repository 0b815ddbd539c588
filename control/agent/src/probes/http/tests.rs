//! What a prober sees, and what somebody sees who is none.

use std::io::{BufRead as _, BufReader};

use bulkhead_dataplane::engine::Check;

use super::*;

/// Lives, and is not ready.
struct Fake;

impl Subject for Fake {
    fn live(&self) -> Vec<Check> {
        vec![Check {
            name: "threads".to_owned(),
            wrong: None,
        }]
    }

    fn ready(&self) -> Vec<Check> {
        vec![Check {
            name: "started".to_owned(),
            wrong: Some("waiting for net3".to_owned()),
        }]
    }

    fn metrics(&self) -> Result<String, String> {
        Ok("# EOF\n".to_owned())
    }
}

fn server() -> Server {
    let address = "127.0.0.1:0".parse().expect("an address");
    let place = Place {
        address,
        interface: "lo".to_owned(),
    };
    Server::start(&place, Arc::new(Fake)).expect("a server")
}

/// The answer to some bytes, and how long it took.
fn ask(server: &Server, request: &[u8]) -> (String, Duration) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(server.address).expect("a connection");
    stream.write_all(request).expect("a request");
    let mut answer = String::new();
    // What is left unread by the other side comes back as a reset, after what it had to say.
    let _ = stream.read_to_string(&mut answer);
    (answer, began.elapsed())
}

fn get(server: &Server, path: &str) -> String {
    let (answer, took) = ask(
        server,
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
    );
    assert!(took < Duration::from_secs(1), "{path} took {took:?}");
    answer
}

#[test]
fn probes_are_answered_by_status_and_lines() {
    let server = server();
    let live = get(&server, "/livez");
    assert!(live.starts_with("HTTP/1.1 200 OK\r\n"), "{live}");
    assert!(
        live.ends_with("\r\n\r\n[+]threads ok\nlivez check passed\n"),
        "{live}"
    );
    let ready = get(&server, "/readyz?verbose");
    assert!(
        ready.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{ready}"
    );
    assert!(
        ready.ends_with("[-]started: waiting for net3\nreadyz check failed\n"),
        "{ready}"
    );
    let metrics = get(&server, "/metrics");
    assert!(
        metrics
            .to_ascii_lowercase()
            .contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{metrics}"
    );
    assert!(get(&server, "/").starts_with("HTTP/1.1 404 "));
    assert!(get(&server, "/livez/x").starts_with("HTTP/1.1 404 "));
}

#[test]
fn only_get_and_head_are_served() {
    let server = server();
    let (head, took) = ask(&server, b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(took < Duration::from_secs(1), "{took:?}");
    let (post, _) = ask(
        &server,
        b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
    );
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
    assert!(
        post.to_ascii_lowercase().contains("allow: get, head\r\n"),
        "{post}"
    );
}

#[test]
fn nonsense_and_long_heads_are_refused() {
    let server = server();
    let (answer, _) = ask(&server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n");
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
        "{answer}"
    );
    let long = format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(HEAD_BYTES));
    let (answer, _) = ask(&server, long.as_bytes());
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS + 1));
    let (answer, _) = ask(&server, many.as_bytes());
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
    assert!(get(&server, "/livez").starts_with("HTTP/1.1 200 "));
}

/// Whoever says nothing, or one byte at a time, is put off after a while; the others are answered meanwhile, or then.
#[test]
fn who_dawdles_is_put_off_and_keeps_nobody_from_being_answered() {
    let server = server();
    let slow: Vec<TcpStream> = (0..WORKERS - 1)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address).expect("a connection");
            stream.write_all(b"GET /li").expect("a beginning");
            stream
        })
        .collect();
    assert!(
        get(&server, "/livez").starts_with("HTTP/1.1 200 "),
        "one worker is left"
    );
    let began = Instant::now();
    for stream in slow {
        let mut line = String::new();
        let _ = BufReader::new(stream).read_line(&mut line);
        assert!(!line.contains("200"), "{line}");
    }
    assert!(
        began.elapsed() < PATIENCE + Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    // Stopping does not wait for longer either.
    let _idle = TcpStream::connect(server.address).expect("a connection");
    let began = Instant::now();
    drop(server);
    assert!(
        began.elapsed() < PATIENCE + Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}
