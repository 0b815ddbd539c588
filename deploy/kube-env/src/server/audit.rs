//! Who asked what of the API server, by its own audit log.
//!
//! Owns the policy, which notes every request of a user once, and the reading of the log. Knows nothing of bodies: what was
//! asked and how it was answered is enough to tell a call that nobody granted, or a list that came again.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// The policy's file.
pub(super) const POLICY: &str = "audit-policy.json";
/// The log's.
pub(super) const LOG: &str = "audit.log";

/// A request and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `list`, `watch`, `patch`, `create`, ..
    pub verb: String,
    /// The resource, with its subresource: `firewalls/status`; empty where a path is none.
    pub resource: String,
    /// The path with its query.
    pub uri: String,
    /// The HTTP status; a watch begins with 200 whatever it says later.
    pub code: u64,
}

/// Every request of people and programs, not those of the API server to itself.
pub(super) fn write_policy(directory: &Path) -> Result<()> {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        // A watch is noted at its beginning, everything else at its end: each once.
        "omitStages": ["RequestReceived"],
        "rules": [
            { "level": "None", "users": ["system:apiserver", "system:anonymous"] },
            { "level": "Metadata" },
        ],
    });
    let path = directory.join(POLICY);
    fs::write(&path, policy.to_string()).with_context(|| format!("cannot write {}", path.display()))
}

pub(super) fn asked(directory: &Path, user: &str) -> Result<Vec<Asked>> {
    let path = directory.join(LOG);
    let log = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // The last line may not be whole yet; a server that was killed leaves half a line behind.
    let events = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(events.filter_map(|event| read(&event, user)).collect())
}

/// What was refused for good: what is granted is refused too, for a moment, by an API server that has just started and does not know
/// its own roles yet.
pub(super) fn refused(asked: Vec<Asked>) -> Vec<Asked> {
    let of = |asked: &Asked| (asked.verb.clone(), without_version(&asked.uri));
    let granted: BTreeSet<(String, String)> = asked.iter().filter(|asked| asked.code < 400).map(of).collect();
    let mut refused = asked;
    refused.retain(|asked| asked.code == 403 && !granted.contains(&of(asked)));
    refused
}

/// A path without the version from which a watch goes on.
fn without_version(uri: &str) -> String {
    let parts = uri.split('&');
    let parts: Vec<&str> = parts
        .filter(|part| !part.starts_with("resourceVersion="))
        .collect();
    parts.join("&")
}

/// `None`: somebody else's, or the end of a watch.
fn read(event: &Value, user: &str) -> Option<Asked> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let verb = text(&event["verb"]);
    let ended = verb == "watch" && event["stage"] == "ResponseComplete";
    // A watch that is refused has no beginning.
    let code = event["responseStatus"]["code"].as_u64().unwrap_or_default();
    if event["user"]["username"] != user || (ended && code < 400) {
        return None;
    }
    let object = &event["objectRef"];
    let mut resource = text(&object["resource"]);
    if let Some(sub) = object["subresource"].as_str() {
        resource = format!("{resource}/{sub}");
    }
    Some(Asked {
        verb,
        resource,
        uri: text(&event["requestURI"]),
        code,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_read_once_and_what_is_granted_later_is_not_refused() {
        let event = |stage: &str, code: u64| {
            json!({
                "stage": stage, "verb": "watch", "requestURI": "/api/v1/pods?watch=1", "user": { "username": "fw" },
                "objectRef": { "resource": "pods" }, "responseStatus": { "code": code },
            })
        };
        assert_eq!(read(&event("ResponseStarted", 200), "other"), None);
        assert_eq!(read(&event("ResponseComplete", 200), "fw"), None);
        for (stage, code) in [("ResponseStarted", 200), ("ResponseComplete", 403)] {
            let asked = read(&event(stage, code), "fw").expect("a request");
            assert_eq!((asked.code, asked.resource.as_str()), (code, "pods"), "{stage}");
        }
        let list = |code: u64, uri: &str| Asked {
            verb: "list".to_owned(),
            resource: "pods".to_owned(),
            uri: uri.to_owned(),
            code,
        };
        let (early, late) = (
            list(403, "/pods?a=1&resourceVersion=7"),
            list(200, "/pods?a=1&resourceVersion=9"),
        );
        let other = list(403, "/pods?a=2");
        assert_eq!(
            refused(vec![early.clone(), late, other.clone()]),
            [other],
            "granted a moment later"
        );
        assert_eq!(refused(vec![early.clone()]), [early]);
        let mut status = event("ResponseComplete", 200);
        status["verb"] = json!("patch");
        status["objectRef"]["subresource"] = json!("status");
        assert_eq!(read(&status, "fw").expect("a request").resource, "pods/status");
    }
}
