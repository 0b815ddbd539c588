//! Fetching a list: https, http where it was allowed, and files.
//!
//! Owns what a fetch may cost and whom it trusts: certificates are verified (Mozilla's authorities or a file of them),
//! proxies of the environment are not asked, at most [`REDIRECTS`] redirects are followed and none from https to http, a
//! token is not sent on to another host, time and bytes are bounded, and what has not changed is not sent again. Assumes a thread that
//! may block. Refuses to repeat in an error what may be secret: the address, the token.
//!
//! The client is ureq: it blocks as our threads do, brings rustls and HTTP/1.1 and nothing asynchronous. An agent lives
//! for one fetch, so that a changed token, certificate or authority is in use at the next one.

mod resolver;
mod tls;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::unversioned::transport::DefaultConnector;

use crate::list::{List, ListError, Rules};
use crate::names::System;

/// The most redirects that are followed.
pub const REDIRECTS: u32 = 5;
/// The most bytes of a token or certificate file.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The most bytes of the head of an answer.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Where a list is, and what the server wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `https://`, `http://` or `file://`.
    pub url: String,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// File with the authorities to trust instead of Mozilla's.
    pub ca_file: Option<PathBuf>,
    /// Files with a certificate chain and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// The most bytes of the list as it is sent.
    pub max_body_bytes: u64,
    /// How long anything may take.
    pub patience: Patience,
}

/// How long the parts of a fetch may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// To connect, the handshake included.
    pub connect: Duration,
    /// Until the head of the answer is there.
    pub answer: Duration,
    /// All of it.
    pub whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(20),
            whole: Duration::from_secs(120),
        }
    }
}

/// How the server names the version of the list that we have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// `ETag`; of a file its time, size and number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// `Last-Modified`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
}

/// What a fetch brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The list is still the one we have.
    Unchanged,
    /// Another list.
    New(List, Stamp),
}

/// Why a fetch brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The list itself.
    #[error(transparent)]
    List(#[from] ListError),
    /// The server answered, but not with a list.
    #[error("the server answered {0}{1}")]
    Status(u16, &'static str),
    /// It sends more than it may.
    #[error("the list is larger than {0} bytes")]
    TooLarge(u64),
    /// It was too slow.
    #[error("the server takes too long")]
    Slow,
    /// A redirect that leads out of https.
    #[error("the server redirects to an address without encryption")]
    RedirectToHttp,
    /// Too many redirects.
    #[error("the server redirects more than {REDIRECTS} times")]
    Redirects,
    /// The name has no address.
    #[error("the name of the server has no address; {0}")]
    Name(String),
    /// Its certificate, or ours.
    #[error("TLS: {0}")]
    Tls(String),
    /// A file of the configuration.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Anything else between us and the server.
    #[error("{0}")]
    Transport(String),
}

/// Fetches a list unless `stamp` is still its version.
///
/// # Errors
/// If there is none to be had, or it is refused; nothing of it is used then.
pub fn fetch(
    source: &Source,
    stamp: &Stamp,
    rules: &Rules,
    system: &System,
    now: SystemTime,
) -> Result<Fetched, FetchError> {
    match source.url.strip_prefix("file://") {
        Some(path) => file(Path::new(path), source, stamp, rules, now),
        None => http(source, stamp, rules, system, now),
    }
}

fn http(
    source: &Source,
    stamp: &Stamp,
    rules: &Rules,
    system: &System,
    now: SystemTime,
) -> Result<Fetched, FetchError> {
    let https = source.url.starts_with("https://");
    let config = Agent::config_builder()
        .tls_config(tls::config(source)?)
        .https_only(https)
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(REDIRECTS)
        .max_response_header_size(MAX_HEAD_BYTES)
        .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
        .accept("*/*")
        .timeout_connect(Some(source.patience.connect))
        .timeout_recv_response(Some(source.patience.answer))
        .timeout_global(Some(source.patience.whole))
        .build();
    let resolver = resolver::Names::new(system.clone());
    let failure = resolver.failure();
    let agent = Agent::with_parts(config, DefaultConnector::new(), resolver);
    let mut request = agent.get(&source.url);
    if let Some(path) = &source.token_file {
        request = request.header("Authorization", format!("Bearer {}", token(path)?));
    }
    if let Some(etag) = &stamp.etag {
        request = request.header("If-None-Match", etag);
    }
    if let Some(time) = &stamp.last_modified {
        request = request.header("If-Modified-Since", time);
    }
    let mut response = request.call().map_err(|error| match error {
        ureq::Error::HostNotFound => FetchError::Name(failure.take()),
        error => refused(error, source),
    })?;
    match response.status().as_u16() {
        200 => {}
        304 if *stamp != Stamp::default() => return Ok(Fetched::Unchanged),
        status => return Err(FetchError::Status(status, meaning(status))),
    }
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let stamp = Stamp {
        etag: header("etag"),
        last_modified: header("last-modified"),
    };
    let body = response.body_mut().with_config();
    let body = body.limit(source.max_body_bytes).reader();
    match crate::read(body, rules, now) {
        Ok(list) => Ok(Fetched::New(list, stamp)),
        // What the client has to say comes wrapped in what a reader may say.
        Err(ListError::Read(error)) => Err(broken(error, source)),
        Err(error) => Err(error.into()),
    }
}

fn broken(error: io::Error, source: &Source) -> FetchError {
    match error.downcast::<ureq::Error>() {
        Ok(error) => refused(error, source),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => FetchError::Slow,
        Err(error) => ListError::Read(error).into(),
    }
}

fn refused(error: ureq::Error, source: &Source) -> FetchError {
    use ureq::Error;
    match error {
        Error::BodyExceedsLimit(_) => FetchError::TooLarge(source.max_body_bytes),
        Error::Timeout(_) => FetchError::Slow,
        Error::RequireHttpsOnly(_) => FetchError::RedirectToHttp,
        Error::TooManyRedirects => FetchError::Redirects,
        Error::Rustls(error) => FetchError::Tls(error.to_string()),
        Error::Tls(error) => FetchError::Tls(error.to_owned()),
        Error::Pem(error) => FetchError::Tls(error.to_string()),
        Error::BadUri(_) | Error::Http(_) => {
            FetchError::Transport("the address of the list, or of a redirect, is malformed".to_owned())
        }
        Error::Io(error) => match error.downcast::<ureq::Error>() {
            Ok(inner) => refused(inner, source),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => FetchError::Tls(error.to_string()),
            Err(error) => FetchError::Transport(error.to_string()),
        },
        error => FetchError::Transport(error.to_string()),
    }
}

/// What a person should think of first.
fn meaning(status: u16) -> &'static str {
    match status {
        401 => " (unauthorized); is the token right?",
        403 => " (forbidden); does the server want a token or a certificate?",
        404 | 410 => " (not found)",
        429 => " (too many requests); raise the interval",
        500..=599 => " (its own error)",
        _ => "",
    }
}

fn token(path: &Path) -> Result<String, FetchError> {
    let text = String::from_utf8(small_file(path)?).unwrap_or_default();
    let token = text.trim();
    match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(token.to_owned()),
        false => Err(unusable(
            path,
            "is not a token: one word of ASCII characters is wanted",
        )),
    }
}

fn unusable(path: &Path, why: impl ToString) -> FetchError {
    FetchError::File {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn small_file(path: &Path) -> Result<Vec<u8>, FetchError> {
    let mut content = Vec::new();
    regular(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content))
        .map_err(|error| unusable(path, error))?;
    match content.len() as u64 > MAX_FILE_BYTES {
        true => Err(unusable(path, format!("is larger than {MAX_FILE_BYTES} bytes"))),
        false => Ok(content),
    }
}

/// A pipe or a device would have us wait for ever.
fn regular(path: &Path) -> io::Result<File> {
    match fs::metadata(path)?.is_file() {
        true => File::open(path),
        false => Err(io::Error::other("is not a regular file")),
    }
}

fn file(
    path: &Path,
    source: &Source,
    stamp: &Stamp,
    rules: &Rules,
    now: SystemTime,
) -> Result<Fetched, FetchError> {
    use std::os::unix::fs::MetadataExt as _;
    let opened = regular(path).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = opened.map_err(|error| unusable(path, error))?;
    let version = format!(
        "{}.{:09} {} {}",
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.len(),
        metadata.ino()
    );
    if stamp.etag.as_ref() == Some(&version) {
        return Ok(Fetched::Unchanged);
    }
    if metadata.len() > source.max_body_bytes {
        return Err(FetchError::TooLarge(source.max_body_bytes));
    }
    let list = crate::read(file.take(source.max_body_bytes), rules, now)?;
    let stamp = Stamp {
        etag: Some(version),
        last_modified: None,
    };
    Ok(Fetched::New(list, stamp))
}
