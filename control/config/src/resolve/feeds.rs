//! Feeds: where a list is, and whether what is asked for makes sense together.
//!
//! Refuses secrets in the document: a token is named by its file, and an address with a password in it is refused,
//! because the document is shown, compared and kept.

use std::path::PathBuf;
use std::time::Duration;

use super::Checker;
use super::quantities::{FEED_HOLDS, FEED_INTERVALS};
use crate::address::Refusal;
use crate::config::{ClientCertificate, Feed};
use crate::document::{FeedEntry, ListFormat};
use crate::node::{Segment, steps};

const INTERVAL: Duration = Duration::from_secs(300);
const ENTRIES: u32 = 1_000_000;
const MAX_ENTRIES: u32 = 2_000_000;

#[derive(Clone, Copy, PartialEq)]
enum Scheme {
    Https,
    Http,
    File,
}

impl Checker<'_, '_> {
    pub(super) fn feed(&mut self, group: &str, entry: &FeedEntry, path: &[Segment]) -> Option<Feed> {
        let at = |field: &'static str| [path, &steps![field]].concat();
        let scheme = match scheme(&entry.url) {
            Ok(scheme) => Some(scheme),
            Err(refusal) => {
                self.error(&at("url"), refusal);
                None
            }
        };
        if scheme == Some(Scheme::Http) && entry.allow_http != Some(true) {
            let message = format!("the feed of address group \"{group}\" is fetched without encryption");
            let help = "use https, or set `allowHttp: true` if anybody on the way may write the list";
            self.error(&at("url"), (message, Some(help.to_owned())));
        }
        let tls_only = [
            ("tokenFile", entry.token_file.is_some()),
            ("caFile", entry.ca_file.is_some()),
            ("clientCertificate", entry.client_certificate.is_some()),
        ];
        for (field, _) in tls_only.into_iter().filter(|(_, written)| *written) {
            if scheme.is_some_and(|scheme| scheme != Scheme::Https) {
                let message = format!("`{field}` is for https alone, and this feed is not");
                let help = "use an https address, or leave it out".to_owned();
                self.error_at_key(&at(field), (message, Some(help)));
            }
        }
        let format = entry.format.unwrap_or_default();
        let keys = self.keys(entry, format, &at("key"));
        let interval = self.duration(&at("interval"), entry.interval.as_ref(), INTERVAL, FEED_INTERVALS);
        let hold = entry
            .hold
            .is_some()
            .then(|| self.duration(&at("hold"), entry.hold.as_ref(), INTERVAL, FEED_HOLDS));
        let max_entries = self.number(&at("maxEntries"), entry.max_entries, ENTRIES, (1, MAX_ENTRIES));
        let token_file = self.file(entry.token_file.as_deref(), &at("tokenFile"));
        let ca_file = self.file(entry.ca_file.as_deref(), &at("caFile"));
        let client_certificate = entry.client_certificate.as_ref().and_then(|written| {
            let at = |field: &'static str| [&*at("clientCertificate"), &steps![field]].concat();
            let certificate_file = self.file(Some(&written.certificate_file), &at("certificateFile"));
            let key_file = self.file(Some(&written.key_file), &at("keyFile"));
            Some(ClientCertificate {
                certificate_file: certificate_file?,
                key_file: key_file?,
            })
        });
        scheme.map(|_| Feed {
            url: entry.url.clone(),
            format,
            keys,
            interval,
            hold,
            max_entries,
            token_file,
            ca_file,
            client_certificate,
            allow_default_route: entry.allow_default_route == Some(true),
        })
    }

    fn keys(&mut self, entry: &FeedEntry, format: ListFormat, path: &[Segment]) -> Vec<String> {
        let Some(keys) = &entry.key else { return Vec::new() };
        if matches!(format, ListFormat::Text | ListFormat::Stix) {
            let message = "`key` is for JSON alone".to_owned();
            let help = "leave it out, or write `format: json`".to_owned();
            self.error_at_key(path, (message, Some(help)));
        }
        let empty = keys.iter().any(|key| key.split('.').any(str::is_empty));
        if keys.is_empty() || empty {
            let message = "`key` has an empty name".to_owned();
            let help = "write names joined by dots, such as `prefixes.ip_prefix`".to_owned();
            self.error_at_key(path, (message, Some(help)));
        }
        keys.to_vec()
    }

    /// The daemon may run in any directory.
    fn file(&mut self, written: Option<&str>, path: &[Segment]) -> Option<PathBuf> {
        let written = written?;
        if written.starts_with('/') {
            return Some(written.into());
        }
        let message = format!("file \"{written}\" is not named from the root");
        let help = "write the whole path, such as /etc/bulkhead/token".to_owned();
        self.error(path, (message, Some(help)));
        None
    }
}

fn scheme(url: &str) -> Result<Scheme, Refusal> {
    let refuse = |message: String, help: &str| Err((message, Some(help.to_owned())));
    let whole = "write the whole address, such as https://feeds.example/list.txt";
    // An address with a password is not repeated.
    let Some((scheme, rest)) = url.split_once("://") else {
        return refuse("the url of the feed has no scheme".to_owned(), whole);
    };
    if url.contains(|c: char| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
        let help = "write other characters than ASCII as %xx";
        return refuse(
            "the url of the feed has characters that no address has".to_owned(),
            help,
        );
    }
    let scheme = match scheme {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        "file" => Scheme::File,
        _ => {
            let help = "it can be https, http with `allowHttp`, or file";
            return refuse(format!("a feed cannot be fetched by {scheme}"), help);
        }
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match scheme {
        Scheme::File if !rest.starts_with('/') || rest.len() < 2 => refuse(
            format!("\"{url}\" names no file from the root"),
            "write file:///path/of/the/list",
        ),
        Scheme::File => Ok(scheme),
        _ if host.contains('@') => {
            let help = "put a token into a file and name it by `tokenFile`";
            refuse(
                "the url of the feed has a name or password in it".to_owned(),
                help,
            )
        }
        _ if host.is_empty() || host.starts_with(':') => {
            refuse("the url of the feed has no host".to_owned(), whole)
        }
        _ => Ok(scheme),
    }
}
