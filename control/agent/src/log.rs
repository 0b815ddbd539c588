//! The daemon's log: constant messages plus fields, on standard error, one line each.

use std::io::{self, IsTerminal as _};

use bulkhead_config::Severity;
use bulkhead_dataplane::engine::{EventKind, FlowEvent};
use tracing_subscriber::EnvFilter;

use crate::configuration::{Configuration, Refused};
use crate::report::seconds;
use crate::words;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// Everything from `info` up, but not every single attempt to reach an API server that is away: whoever follows it says so once.
const DEFAULT: &str = "info,kube_client=off,kube_runtime=off";

/// Begins to log. `RUST_LOG` chooses what; without it, [`DEFAULT`].
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Logs an event that a policy asked to be logged, and those of screens; others are for `observe` alone.
pub fn event(event: &FlowEvent) {
    if !event.log {
        return;
    }
    let protocol = words::protocol(event.protocol);
    let policy = event.policy.as_deref();
    let (source, destination) = (event.source, event.destination);
    let translated = event.translated_source.map(tracing::field::display);
    let egress = event.egress.as_deref();
    let (icmp_type, icmp_code) = (event.icmp.map(|(kind, _)| kind), event.icmp.map(|(_, code)| code));
    match event.kind {
        EventKind::Create => tracing::info!(
            session = event.session_id,
            policy,
            %protocol,
            %source,
            %destination,
            translated,
            icmp_type,
            icmp_code,
            from_zone = event.from_zone,
            to_zone = event.to_zone,
            ingress = event.ingress,
            egress,
            "session created"
        ),
        EventKind::Close => tracing::info!(
            session = event.session_id,
            policy,
            %protocol,
            %source,
            %destination,
            translated,
            icmp_type,
            icmp_code,
            from_zone = event.from_zone,
            to_zone = event.to_zone,
            ingress = event.ingress,
            egress,
            reason = event.reason.name(),
            packets = event.packets,
            bytes = event.bytes,
            reply_packets = event.reply_packets,
            reply_bytes = event.reply_bytes,
            duration_seconds = event.duration.map(seconds),
            "session closed"
        ),
        EventKind::Deny => tracing::info!(
            policy,
            %protocol,
            %source,
            %destination,
            icmp_type,
            icmp_code,
            from_zone = event.from_zone,
            to_zone = event.to_zone,
            ingress = event.ingress,
            egress,
            reason = event.reason.name(),
            "denied"
        ),
        EventKind::Screen => tracing::warn!(
            %protocol,
            %source,
            %destination,
            icmp_type,
            icmp_code,
            from_zone = event.from_zone,
            ingress = event.ingress,
            reason = event.reason.name(),
            dropped = event.dropped,
            "screened"
        ),
    }
}

/// Logs what is doubtful about a configuration.
pub fn warnings(configuration: &Configuration) {
    for warning in &configuration.parsed.warnings {
        tracing::warn!(
            file = warning.file,
            line = warning.line,
            column = warning.column,
            field = warning.path,
            help = warning.help,
            problem = warning.message,
            "configuration warning"
        );
    }
}

/// Logs an error: one line per finding of a refused configuration, with the fields a person would look for; one line for
/// anything else.
pub fn refusal(error: &anyhow::Error) {
    match error.downcast_ref::<Refused>() {
        Some(Refused {
            diagnostics,
            unreadable: None,
            ..
        }) => {
            for found in diagnostics
                .iter()
                .filter(|found| found.severity == Severity::Error)
            {
                tracing::error!(
                    file = found.file,
                    line = found.line,
                    column = found.column,
                    field = found.path,
                    help = found.help,
                    problem = found.message,
                    "configuration refused"
                );
            }
        }
        Some(Refused {
            file,
            unreadable: Some(reason),
            ..
        }) => tracing::error!(file, problem = reason, "configuration refused"),
        None => tracing::error!(problem = crate::abridged(&format!("{error:#}")), "failed"),
    }
}
