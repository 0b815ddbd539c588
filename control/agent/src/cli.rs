//! The words of the command line. What they do is elsewhere; what they mean is said here, once, in the help.

mod commits;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

pub use self::commits::{CommitArgs, ConfirmArgs, DiffArgs, RollbackArgs, Side};
use crate::demo::DemoArgs;
use crate::filter::{FlowFilter, Prefix, SessionFilter};
use crate::launch::RunArgs;
use crate::output::Format;
use crate::pins::DetachArgs;
use crate::protocol::{DEFAULT_SESSIONS, DEFAULT_SOCKET, MAX_SESSIONS};
use crate::report::{FlowKind, Question, Verdict};
use crate::words::{self, IcmpType};

/// A container firewall: zones, policies and source NAT, enforced by eBPF.
///
/// Exit status: 0 if it worked, 1 if it did not, 2 for bad usage or a refused configuration.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Enforce a configuration until SIGTERM; SIGHUP reads it again
    Run(Box<RunArgs>),
    /// Say whether configurations would be accepted; changes nothing
    Check(CheckArgs),
    /// Put a configuration in force and keep it as a revision; a wrong one changes nothing
    Commit(CommitArgs),
    /// Keep the revision in force that `commit --confirm` put there
    Confirm(ConfirmArgs),
    /// Put an earlier revision in force again
    Rollback(RollbackArgs),
    /// List the revisions that are kept
    History(ShowArgs),
    /// Say what differs between two configurations
    Diff(DiffArgs),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Print the definitions of the custom resources, for `kubectl apply`
    Crds,
    /// Show what the running firewall knows
    #[command(subcommand)]
    Show(Show),
    /// Remove things from the running firewall
    #[command(subcommand)]
    Clear(Clear),
    /// Add addresses to groups of the running firewall, and remove them
    #[command(subcommand)]
    Group(GroupCommand),
    /// Say what would happen to a conversation, and why; sends nothing
    Explain(ExplainArgs),
    /// Watch conversations begin, end and be denied
    Observe(ObserveArgs),
    /// Take off what a stopped daemon has left enforcing; needs no daemon
    Detach(DetachArgs),
    /// Say whether a firewall can run here, and what to do if not; needs no daemon
    Doctor(DoctorArgs),
    /// Do nothing until SIGTERM: holds a container's network for a firewall that shares it and may come and go
    Hold,
    /// Set up five segments around a firewall, let them talk, show who reached whom
    Demo(DemoArgs),
}

/// Where the daemon is.
#[derive(Clone, Debug, Args)]
pub struct SocketArg {
    /// Where the daemon listens
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

/// Whom to ask, and how to show the answer.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// How to show it
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
    #[command(flatten)]
    pub socket: SocketArg,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Files to check
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Also require that the interfaces exist on this machine, as `run` does
    #[arg(long)]
    pub interfaces: bool,
    /// How to show it
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// Things to show.
#[derive(Debug, Subcommand)]
pub enum Show {
    /// Data interfaces: zone, addresses, hook and why that one
    Interfaces(ShowArgs),
    /// Zones: interfaces, what they may reach of the firewall itself
    Zones(ShowArgs),
    /// Policies in order, and how often each decided
    Policies(ShowArgs),
    /// Live sessions
    Sessions(ShowSessionsArgs),
    /// Translation: rules and how often each was used, pools, mappings
    Nat(ShowArgs),
    /// Screens of each zone: thresholds, what they stopped, the last event
    Screens(ShowArgs),
    /// Address groups: members, where they come from, how old they are and what went wrong
    Groups(ShowGroupsArgs),
    /// Counters: every packet ends in exactly one reason
    Counters(ShowCountersArgs),
    /// The configuration in force, or an earlier one, as it was written
    Config(ShowConfigArgs),
}

/// Arguments of `show config`.
#[derive(Debug, Args)]
pub struct ShowConfigArgs {
    /// Number of a revision, as `history` shows it [default: the one in force]
    #[arg(value_name = "REVISION")]
    pub revision: Option<u64>,
    #[command(flatten)]
    pub show: ShowArgs,
}

/// Arguments of `show sessions`.
#[derive(Debug, Args)]
pub struct ShowSessionsArgs {
    #[command(flatten)]
    pub filter: SessionFilterArgs,
    /// Show at most so many
    #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_SESSIONS, value_parser = limit)]
    pub limit: usize,
    #[command(flatten)]
    pub show: ShowArgs,
}

fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if limit <= MAX_SESSIONS => Ok(limit),
        _ => Err(format!(
            "\"{text}\" is not a number from 0 to {MAX_SESSIONS}; narrow the sessions down instead"
        )),
    }
}

/// Arguments of `show groups`.
#[derive(Debug, Args)]
pub struct ShowGroupsArgs {
    /// Only this group
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// All members of feeds, names and commands, not only the first few
    #[arg(long)]
    pub members: bool,
    #[command(flatten)]
    pub show: ShowArgs,
}

/// What can be done to groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Add addresses; live sessions are judged again at their next packet
    Add(GroupAddArgs),
    /// Remove addresses that were added; what the configuration or a feed says is left out with `except`
    Remove(GroupRemoveArgs),
}

/// Arguments of `group add`.
#[derive(Debug, Args)]
pub struct GroupAddArgs {
    /// The group
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Addresses, prefixes and ranges
    #[arg(value_name = "ADDRESS", required = true)]
    pub addresses: Vec<String>,
    /// Only for so long, such as 1h [default: until removed, restarts included]
    #[arg(long = "for", value_name = "TIME", value_parser = words::parse_duration)]
    pub lasting: Option<Duration>,
    #[command(flatten)]
    pub show: ShowArgs,
}

/// Arguments of `group remove`.
#[derive(Debug, Args)]
pub struct GroupRemoveArgs {
    /// The group
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Addresses, prefixes and ranges
    #[arg(value_name = "ADDRESS", required = true)]
    pub addresses: Vec<String>,
    #[command(flatten)]
    pub show: ShowArgs,
}

/// Arguments of `show counters`.
#[derive(Debug, Args)]
pub struct ShowCountersArgs {
    /// Those that are zero too
    #[arg(long, conflicts_with = "memory")]
    pub all: bool,
    /// What the tables take instead: entries, room and bytes
    #[arg(long)]
    pub memory: bool,
    #[command(flatten)]
    pub show: ShowArgs,
}

/// Things to clear.
#[derive(Debug, Subcommand)]
pub enum Clear {
    /// End live sessions; their packets are judged anew
    Sessions(ClearSessionsArgs),
}

/// Arguments of `clear sessions`.
#[derive(Debug, Args)]
pub struct ClearSessionsArgs {
    #[command(flatten)]
    pub filter: SessionFilterArgs,
    /// End every session
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub show: ShowArgs,
}

/// Which sessions.
#[derive(Clone, Debug, Args)]
pub struct SessionFilterArgs {
    /// Protocol by name or number
    #[arg(long, value_name = "PROTOCOL", value_parser = words::parse_protocol)]
    pub protocol: Option<u8>,
    /// Started from this address or prefix
    #[arg(long, value_name = "PREFIX")]
    pub source: Option<Prefix>,
    /// Meant for this address or prefix
    #[arg(long, value_name = "PREFIX")]
    pub destination: Option<Prefix>,
    /// Either port of either direction, before or after translation
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Either interface
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Either zone
    #[arg(long, value_name = "NAME")]
    pub zone: Option<String>,
    /// Permitted by this policy
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
}

impl From<SessionFilterArgs> for SessionFilter {
    fn from(args: SessionFilterArgs) -> Self {
        let SessionFilterArgs {
            protocol,
            source,
            destination,
            port,
            interface,
            zone,
            policy,
        } = args;
        Self {
            protocol,
            source,
            destination,
            port,
            interface,
            zone,
            policy,
        }
    }
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["tcp", "udp", "icmp", "protocol"]))]
pub struct ExplainArgs {
    /// Interface or zone it would come from
    #[arg(long, value_name = "NAME")]
    pub from: String,
    /// Who would start it
    #[arg(long, value_name = "ADDRESS")]
    pub src: IpAddr,
    /// Whom it would be for
    #[arg(long, value_name = "ADDRESS")]
    pub dst: IpAddr,
    /// TCP to this port
    #[arg(long, value_name = "PORT")]
    pub tcp: Option<u16>,
    /// UDP to this port
    #[arg(long, value_name = "PORT")]
    pub udp: Option<u16>,
    /// ICMP or ICMPv6 of this type and code, such as 8 or 3/4, or `ping`
    #[arg(long, value_name = "TYPE[/CODE]", value_parser = words::parse_icmp)]
    pub icmp: Option<IcmpType>,
    /// Another protocol, by name or number
    #[arg(long, value_name = "PROTOCOL", value_parser = words::parse_protocol)]
    pub protocol: Option<u8>,
    /// Source port, to find a live session
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub sport: u16,
    #[command(flatten)]
    pub show: ShowArgs,
}

impl ExplainArgs {
    /// What is asked.
    pub fn question(&self) -> Question {
        let (protocol_number, destination_port, icmp) = match (self.tcp, self.udp, self.icmp) {
            (Some(port), _, _) => (6, port, None),
            (_, Some(port), _) => (17, port, None),
            (_, _, Some(icmp)) => {
                let protocol = if self.src.is_ipv4() { 1 } else { 58 };
                (protocol, 0, Some(icmp.in_family_of(self.src)))
            }
            _ => (self.protocol.unwrap_or(0), 0, None),
        };
        Question {
            from: self.from.clone(),
            source: self.src,
            destination: self.dst,
            protocol_number,
            source_port: self.sport,
            destination_port,
            icmp_type: icmp.map(|(kind, _)| kind),
            icmp_code: icmp.map(|(_, code)| code),
        }
    }
}

/// Arguments of `observe`, named as Hubble's.
#[derive(Debug, Args)]
pub struct ObserveArgs {
    /// Go on with flows to come
    #[arg(long, short)]
    pub follow: bool,
    /// Begin with so many past flows [default: 20, or 0 with --follow]
    #[arg(long, value_name = "NUMBER")]
    pub last: Option<usize>,
    /// Only flows of this verdict
    #[arg(long, value_name = "VERDICT", ignore_case = true)]
    pub verdict: Option<Verdict>,
    /// Only flows of this type
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    pub kind: Option<FlowKind>,
    /// Only flows from this address or prefix
    #[arg(long, value_name = "PREFIX")]
    pub from_ip: Option<Prefix>,
    /// Only flows to this address or prefix
    #[arg(long, value_name = "PREFIX")]
    pub to_ip: Option<Prefix>,
    /// Only flows from or to this address or prefix
    #[arg(long, value_name = "PREFIX")]
    pub ip: Option<Prefix>,
    /// Only flows of this protocol, by name or number
    #[arg(long, value_name = "PROTOCOL", value_parser = words::parse_protocol)]
    pub protocol: Option<u8>,
    /// Only flows from or to this port
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// How to show them
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub output: FlowFormat,
    #[command(flatten)]
    pub socket: SocketArg,
}

impl ObserveArgs {
    /// Which flows.
    pub const fn filter(&self) -> FlowFilter {
        FlowFilter {
            verdict: self.verdict,
            kind: self.kind,
            from_ip: self.from_ip,
            to_ip: self.to_ip,
            ip: self.ip,
            protocol: self.protocol,
            port: self.port,
        }
    }

    /// How many past ones.
    pub fn past(&self) -> usize {
        self.last.unwrap_or(if self.follow { 0 } else { 20 })
    }
}

/// How flows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FlowFormat {
    /// For people: one line per flow
    Table,
    /// For programs: one JSON object per line
    Json,
    /// For programs written for Hubble: its names, one JSON object per line
    Jsonpb,
    /// For programs: one YAML document per flow
    Yaml,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Also look at the interfaces of this configuration
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How to show it
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(arguments: &str) -> Question {
        let line = format!("bulkhead explain --from web {arguments}");
        match Cli::try_parse_from(line.split(' ')).expect("arguments").command {
            Command::Explain(args) => args.question(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_words_fit_together() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_question_knows_its_family() {
        let ping4 = explain("--src 10.0.0.1 --dst 10.0.0.2 --icmp ping");
        assert_eq!(
            (ping4.protocol_number, ping4.icmp_type, ping4.icmp_code),
            (1, Some(8), Some(0))
        );
        let ping6 = explain("--src fd00::1 --dst fd00::2 --icmp ping");
        assert_eq!((ping6.protocol_number, ping6.icmp_type), (58, Some(128)));
        let tcp = explain("--src 10.0.0.1 --dst 10.0.0.2 --tcp 443 --sport 50000");
        assert_eq!(
            (tcp.protocol_number, tcp.source_port, tcp.destination_port),
            (6, 50_000, 443)
        );
        assert_eq!(
            explain("--src 10.0.0.1 --dst 10.0.0.2 --protocol gre").protocol_number,
            47
        );
    }

    #[test]
    fn a_question_has_exactly_one_protocol() {
        for arguments in ["", " --tcp 1 --udp 2", " --tcp 70000", " --icmp x"] {
            let line = format!("bulkhead explain --from a --src ::1 --dst ::2{arguments}");
            let error = Cli::try_parse_from(line.split(' ')).expect_err(&line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn hubbles_flags_are_understood() {
        let line = "bulkhead observe -f --last 5 --verdict dropped -t drop --from-ip 10.0.0.0/8 --ip ::1 --protocol udp --port 53";
        let Command::Observe(args) = Cli::try_parse_from(line.split(' ')).expect("arguments").command else {
            panic!("not observe")
        };
        assert_eq!((args.past(), args.follow), (5, true));
        let filter = args.filter();
        assert_eq!(
            (filter.verdict, filter.kind),
            (Some(Verdict::Dropped), Some(FlowKind::Deny))
        );
        assert_eq!(
            (filter.protocol, filter.port, filter.to_ip),
            (Some(17), Some(53), None)
        );
        let past = |line: &str| match Cli::try_parse_from(line.split(' ')).expect("arguments").command {
            Command::Observe(args) => args.past(),
            other => panic!("{other:?}"),
        };
        assert_eq!((past("bulkhead observe"), past("bulkhead observe -f")), (20, 0));
    }
}
