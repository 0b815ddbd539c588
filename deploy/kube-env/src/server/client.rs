//! Just enough of a Kubernetes client for tests: requests with JSON bodies, server-side apply, and watches.
//!
//! Owns no types: objects are [`Value`]s, so that what is sent and compared is what is written in the test. Answers are not judged
//! until [`Answer::expect`]: a refusal is as good a result as any. It shares no code with the client that Bulkhead uses.

use std::{
    io::{BufRead as _, BufReader},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use ureq::{
    Agent, Body,
    http::{Request, Response},
    tls::{Certificate, RootCerts, TlsConfig},
};

/// How long one request may take; a watch ends by itself before.
const PATIENCE: Duration = Duration::from_secs(60);

/// One user's connection to one API server.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    url: String,
    token: Option<String>,
}

/// What the API server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The object, or a `Status`; text that is not JSON is a string.
    pub body: Value,
}

impl Answer {
    /// The object, if the status is `status`.
    #[track_caller]
    pub fn expect(self, status: u16) -> Result<Value> {
        if self.status != status {
            bail!(
                "expected status {status}, but it is {}: {:#}",
                self.status,
                self.body
            );
        }
        Ok(self.body)
    }
}

impl Client {
    /// A client that trusts `ca_pem` and shows `token`.
    pub(super) fn new(url: &str, ca_pem: &str, token: &str) -> Result<Self> {
        let ca = Certificate::from_pem(ca_pem.as_bytes()).context("cannot read the authority")?;
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(vec![ca])))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            url: url.to_owned(),
            token: Some(token.to_owned()),
        })
    }

    /// A client without TLS and token, for etcd.
    pub(super) fn plain(url: &str) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        Self {
            agent,
            url: url.to_owned(),
            token: None,
        }
    }

    /// Whether the URL itself answers 200.
    pub(super) fn ok(&self) -> bool {
        self.get("").is_ok_and(|answer| answer.status == 200)
    }

    /// Posts to the URL itself and takes nothing but success.
    pub(super) fn post_json(&self, body: &Value) -> Result<Value> {
        self.post("", body)?.expect(200)
    }

    /// Reads; `path` with its query, such as `/api/v1/namespaces/default/pods?labelSelector=app%3Dweb`.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.request("GET", path, None)
    }

    /// Creates.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.request("POST", path, Some(("application/json", body)))
    }

    /// Replaces.
    pub fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        self.request("PUT", path, Some(("application/json", body)))
    }

    /// Merges (RFC 7386).
    pub fn merge(&self, path: &str, body: &Value) -> Result<Answer> {
        self.request("PATCH", path, Some(("application/merge-patch+json", body)))
    }

    /// Applies on the server's side. `path` is the object's own; `manager` is who owns the fields. Conflicts are not forced.
    pub fn apply(&self, path: &str, manager: &str, body: &Value) -> Result<Answer> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}fieldManager={manager}");
        self.request("PATCH", &path, Some(("application/apply-patch+yaml", body)))
    }

    /// Does for a pod what a scheduler and a kubelet do: it is on a node, runs, and has an address.
    pub fn run_pod(&self, namespace: &str, name: &str) -> Result<()> {
        let pod = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name },
            "target": { "apiVersion": "v1", "kind": "Node", "name": "node-1" },
        });
        self.post(&format!("{pod}/binding"), &binding)?.expect(201)?;
        let address = "10.244.0.9";
        let status = json!({ "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] });
        self.merge(&format!("{pod}/status"), &json!({ "status": status }))?
            .expect(200)?;
        Ok(())
    }

    /// Deletes.
    pub fn delete(&self, path: &str) -> Result<Answer> {
        self.request("DELETE", path, None)
    }

    /// Watches a collection from `resource_version` on, for `seconds` at most.
    pub fn watch(&self, path: &str, resource_version: &str, seconds: u32) -> Result<Watch> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path =
            format!("{path}{separator}watch=1&resourceVersion={resource_version}&timeoutSeconds={seconds}");
        let response = self.send("GET", &path, None)?;
        if response.status() != 200 {
            let answer = answer(response)?;
            bail!(
                "the watch was refused with status {}: {:#}",
                answer.status,
                answer.body
            );
        }
        Ok(Watch {
            lines: BufReader::new(response.into_body().into_reader()),
        })
    }

    fn request(&self, method: &str, path: &str, body: Option<(&str, &Value)>) -> Result<Answer> {
        answer(self.send(method, path, body)?).with_context(|| format!("the answer to {method} {path}"))
    }

    fn send(&self, method: &str, path: &str, body: Option<(&str, &Value)>) -> Result<Response<Body>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let sent = match body {
            Some((kind, body)) => self
                .agent
                .run(request.header("content-type", kind).body(body.to_string())?),
            None => self.agent.run(request.body(())?),
        };
        sent.with_context(|| format!("{method} {}{path}", self.url))
    }
}

fn answer(response: Response<Body>) -> Result<Answer> {
    let status = response.status().as_u16();
    let text = response.into_body().read_to_string()?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer { status, body })
}

/// The events of a watch, `{"type": .., "object": ..}`, until it ends.
pub struct Watch {
    lines: BufReader<ureq::BodyReader<'static>>,
}

impl Iterator for Watch {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).with_context(|| format!("not an event: {line}"))),
            Err(error) => Some(Err(error).context("the watch was cut")),
        }
    }
}
