//! The launch contract: every setting of a start, its value, and where that came from.
//!
//! The command line beats the environment, and the environment the configuration. Owns the whole of it: nothing else reads
//! `BULKHEAD_*`. Refuses, with all faults at once and before anything is touched, a variable that nobody knows, a value that
//! cannot be, and two names of one setting that disagree; so that nothing is ignored in silence.

mod args;
mod contract;
mod settings;
mod terms;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_config::{Overrides, nearest};
use bulkhead_kube::Place;
use serde::Serialize;

pub use self::args::RunArgs;
pub use self::contract::render;
use self::settings::{Key, MEANINGLESS, SETTINGS, Setting, is_development};
pub use self::terms::{Terms, links, management_interface};
pub use self::values::{Addresses, Cpus, Listen, ManagementInterface, OnMissing, cpus};
use crate::log::LogFormat;
use crate::pins::{OnExit, Pins};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "name")]
pub enum Origin {
    /// An argument.
    CommandLine(String),
    /// A variable.
    Environment(String),
    /// A variable by its other name.
    Alias(String),
    /// The configuration file.
    File(String),
    /// The configuration that was accepted last, as the state directory has it.
    Revision(String),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine(name)
            | Self::Environment(name)
            | Self::Alias(name)
            | Self::File(name)
            | Self::Revision(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting as it was decided.
#[derive(Clone, Debug)]
struct Chosen {
    setting: &'static Setting,
    /// In our words; `None`: nothing was said and there is no default.
    value: Option<String>,
    origin: Origin,
}

/// A start as it was asked for.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// The object of the Kubernetes API that has the configuration, in place of a file.
    pub object: Option<Place>,
    /// The ConfigMap that the configuration file is mounted from, with its key, if that is to have a status.
    pub mounted: Option<Place>,
    /// How to reach the API; `None`: as a pod.
    pub kubeconfig: Option<PathBuf>,
    /// What this instance is called, if it was said.
    pub instance: Option<String>,
    /// Whether MultiNetworkPolicies are enforced.
    pub network_policies: bool,
    /// The state directory, if it was named.
    pub state: Option<PathBuf>,
    /// Revisions to keep.
    pub revisions: usize,
    /// The command line's socket.
    pub socket: PathBuf,
    /// Where to pin, if anything was said.
    pub pins: Option<Pins>,
    /// What becomes of the programs.
    pub on_exit: OnExit,
    /// How long a stop waits.
    pub drain: Duration,
    /// How the log is written.
    pub log_format: LogFormat,
    /// What becomes of the start while interfaces are missing.
    pub on_missing: OnMissing,
    /// Where probes are served.
    pub management: Option<Listen>,
    /// The daemon's CPUs; empty: as they are.
    pub control_cpus: Cpus,
    /// The CPUs for what data interfaces receive; empty: as it is.
    pub data_cpus: Cpus,
    /// How long IPv4 neighbours are believed.
    pub arp_timeout: Option<Duration>,
    /// How long IPv6 neighbours are believed.
    pub ndp_timeout: Option<Duration>,
    /// What documents are judged by.
    pub terms: Terms,
    /// What was said and means nothing, for the log.
    pub warnings: Vec<String>,
    chosen: Vec<Chosen>,
}

/// Why nothing was started: the settings are wrong.
#[derive(Debug)]
pub struct Refusal(pub Vec<String>);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "bulkhead: {problem}")?;
        }
        f.write_str("bulkhead: refused, nothing was started; `bulkhead run --help` lists the settings")
    }
}

impl std::error::Error for Refusal {}

/// What the command line and the environment say of each setting.
struct Resolved {
    chosen: Vec<Chosen>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

/// Decides. `environment` is all of it.
///
/// # Errors
/// [`Refusal`]
pub fn resolve(
    args: &RunArgs,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Launch, Refusal> {
    let resolved = choose(args, environment);
    let mut problems = resolved.problems;
    let chosen = resolved.chosen;
    let mut read = Reader {
        chosen: &chosen,
        problems: &mut problems,
    };
    let terms = Terms {
        overrides: Overrides {
            forwarding: read.read(Key::Forwarding, values::forwarding),
            size: read.read(Key::Size, values::size),
        },
        ports: read.read(Key::Ports, values::ports),
        addresses: read.read(Key::Addresses, values::word).unwrap_or_default(),
        management: read
            .read(Key::ManagementInterface, values::management_interface)
            .unwrap_or_default(),
        wait: false,
        listening_on: None,
    };
    let server = read.read(Key::ManagementServer, values::management_server);
    let token = read.read(Key::EnrolmentToken, values::enrolment_token);
    let config_map = read.read(Key::ConfigMap, Place::config_map);
    let firewall = read.read(Key::FirewallResource, Place::firewall);
    let config = read.read(Key::Config, path);
    let mounted = read.read(Key::MountedConfigMap, Place::config_map);
    let mut launch = Launch {
        mounted: mounted.map(|place| of_file(place, config.as_deref())),
        config,
        object: config_map.or(firewall),
        kubeconfig: read.read(Key::Kubeconfig, path),
        instance: read.read(Key::Instance, values::instance),
        network_policies: read
            .read(Key::NetworkPolicies, values::switch)
            .unwrap_or_default(),
        state: read.read(Key::State, path),
        revisions: read
            .read(Key::Revisions, values::revisions)
            .unwrap_or(bulkhead_revisions::DEFAULT_KEPT),
        socket: read
            .read(Key::Socket, path)
            .unwrap_or_else(|| crate::protocol::DEFAULT_SOCKET.into()),
        pins: read.read(Key::Pins, |text| text.parse().map_err(|never| match never {})),
        on_exit: read.read(Key::OnExit, values::word).unwrap_or_default(),
        drain: read.read(Key::Drain, values::drain).unwrap_or_default(),
        log_format: read.read(Key::LogFormat, values::word).unwrap_or(LogFormat::Text),
        on_missing: read.read(Key::OnMissing, values::word).unwrap_or_default(),
        management: read.read(Key::Management, values::listen).flatten(),
        control_cpus: read.read(Key::ControlCpus, values::cpus).unwrap_or_default(),
        data_cpus: read.read(Key::DataCpus, values::cpus).unwrap_or_default(),
        arp_timeout: read.read(Key::ArpTimeout, values::neighbour_timeout),
        ndp_timeout: read.read(Key::NdpTimeout, values::neighbour_timeout),
        terms,
        warnings: resolved.warnings,
        chosen: Vec::new(),
    };
    if server.or(token).is_some() {
        launch.warnings.push(
            "a management server or a token for it is named, and this version does not register itself with one yet: the \
             settings are checked, and nothing is sent"
                .to_owned(),
        );
    }
    if matches!(launch.management, Some(Listen::Interface(_)))
        && launch.terms.management == ManagementInterface::None
    {
        problems.push(
            "management names a port of the management interface, and no interface is for management; say which with \
             --management-interface or BULKHEAD_MANAGEMENT_INTERFACE"
                .to_owned(),
        );
    }
    // Also one that cannot be counts as said: that is its own fault.
    let said = |keys: &[Key]| -> Vec<&Chosen> {
        let given = chosen.iter().filter(|chosen| chosen.value.is_some());
        given
            .filter(|chosen| keys.contains(&chosen.setting.key))
            .collect()
    };
    let sources = said(&[Key::Config, Key::ConfigMap, Key::FirewallResource]);
    if sources.len() > 1 {
        let origins: Vec<String> = sources.iter().map(|source| source.origin.to_string()).collect();
        problems.push(format!(
            "{} each say where the configuration is, and it is in one place; leave all but one of them out",
            origins.join(" and ")
        ));
    }
    if sources.is_empty() && said(&[Key::State]).is_empty() {
        problems.push(
            "there is no configuration; name one with --config or BULKHEAD_CONFIG, in Kubernetes with --config-map or \
             --firewall-resource, or a state directory that has revisions with --state or BULKHEAD_STATE"
                .to_owned(),
        );
    }
    if let [mounted] = said(&[Key::MountedConfigMap])[..]
        && said(&[Key::Config]).is_empty()
    {
        problems.push(format!(
            "{} says which ConfigMap the configuration file is mounted from, and no file is named; name it with --config or \
             BULKHEAD_CONFIG, or the ConfigMap alone with --config-map",
            mounted.origin
        ));
    }
    if !problems.is_empty() {
        return Err(Refusal(problems));
    }
    let terms = Terms {
        wait: launch.on_missing == OnMissing::Wait,
        ..launch.terms
    };
    Ok(Launch {
        terms,
        chosen,
        ..launch
    })
}

/// The kubelet calls files as the keys are called.
fn of_file(place: Place, file: Option<&Path>) -> Place {
    let name = || file?.file_name()?.to_str().map(str::to_owned);
    Place {
        key: place.key.clone().or_else(name),
        ..place
    }
}

/// A path; an empty one is none that anybody meant.
fn path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("it must be a path".to_owned()),
        text => Ok(text.into()),
    }
}

struct Reader<'r> {
    chosen: &'r [Chosen],
    problems: &'r mut Vec<String>,
}

impl Reader<'_> {
    /// The value of a setting in its type; a fault is noted with its origin.
    fn read<T>(&mut self, key: Key, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let chosen = self.chosen.iter().find(|chosen| chosen.setting.key == key)?;
        let value = chosen.value.as_deref()?;
        match parse(value) {
            Ok(value) => Some(value),
            Err(allowed) => {
                let value = match key.is_secret(value) {
                    true => String::new(),
                    false => format!("={value:?}"),
                };
                self.problems
                    .push(format!("{}{value} cannot be: {allowed}", chosen.origin));
                None
            }
        }
    }
}

/// Which value each setting has, by precedence.
fn choose(args: &RunArgs, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Resolved {
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let mut variables = BTreeMap::new();
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        let ours = name.starts_with("BULKHEAD_") && !is_development(name);
        if !ours && !name.starts_with("CSRX_") {
            continue;
        }
        match value.to_str() {
            Some(value) => drop(variables.insert(name.to_owned(), value.to_owned())),
            None => problems.push(format!("{name} is not UTF-8; write it anew")),
        }
    }
    let mut chosen = Vec::with_capacity(SETTINGS.len());
    for setting in SETTINGS {
        let own = variables.remove(setting.variable);
        let alias = setting
            .alias
            .and_then(|alias| Some((alias, variables.remove(alias.variable)?)));
        let alias = alias.and_then(|(alias, value)| match (alias.translate)(&value) {
            Ok(translated) => Some((alias.variable, value, translated)),
            Err(allowed) => {
                problems.push(format!("{}={value:?} cannot be: {allowed}", alias.variable));
                None
            }
        });
        if let (Some(own), Some((variable, value, translated))) = (&own, &alias)
            && own != translated
        {
            problems.push(format!(
                "{}={own:?} and {variable}={value:?} say different things about one setting; leave one of them out",
                setting.variable
            ));
        }
        let (value, origin) = match (args.given(setting.key), own, alias) {
            (Some(given), ..) => (
                Some(given.to_owned()),
                Origin::CommandLine(format!("--{}", setting.name)),
            ),
            (_, Some(own), _) => (Some(own), Origin::Environment(setting.variable.to_owned())),
            (_, _, Some((variable, _, translated))) => (Some(translated), Origin::Alias(variable.to_owned())),
            _ => {
                let default = Some(setting.default).filter(|default| !default.is_empty());
                (default.map(str::to_owned), Origin::Default)
            }
        };
        chosen.push(Chosen {
            setting,
            value,
            origin,
        });
    }
    for (name, value) in variables {
        if let Some((_, why)) = MEANINGLESS.iter().find(|(known, _)| *known == name) {
            warnings.push(format!("{name} means nothing here: {why}"));
        } else if name.starts_with("CSRX_") {
            warnings.push(format!("{name} means nothing here: nobody knows that variable"));
        } else if is_service_link(&name, &value) {
            warnings.push(format!(
                "{name} is what Kubernetes says of a Service and no setting; `enableServiceLinks: false` keeps it out"
            ));
        } else {
            let known = SETTINGS.iter().map(|setting| setting.variable);
            let guess =
                nearest(&name, known).map_or_else(String::new, |near| format!("; did you mean {near}?"));
            // Without the value: it may be a secret under a wrong name.
            problems.push(format!("{name} is no setting{guess}"));
        }
    }
    Resolved {
        chosen,
        problems,
        warnings,
    }
}

/// Whether Kubernetes makes such a variable, in every container of a namespace that has a Service whose name begins with
/// `bulkhead`: `BULKHEAD_SERVICE_HOST`, `BULKHEAD_PORT=tcp://…`, `BULKHEAD_PORT_9360_TCP_ADDR` and their kin.
fn is_service_link(name: &str, value: &str) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    match words[..] {
        [.., "SERVICE", "HOST" | "PORT"] => true,
        [.., "PORT", number, "TCP" | "UDP" | "SCTP"]
        | [
            ..,
            "PORT",
            number,
            "TCP" | "UDP" | "SCTP",
            "PROTO" | "PORT" | "ADDR",
        ] => number.parse::<u16>().is_ok(),
        [.., "PORT"] => value.contains("://"),
        // A port by its name.
        _ => words.windows(2).any(|pair| pair == ["SERVICE", "PORT"]),
    }
}

#[cfg(test)]
mod tests;
