//! What the soak found, for people and for programs.

use std::{collections::BTreeMap, fmt, time::Duration};

use bulkhead_testkit::Account;
use serde::Serialize;

use crate::{Memory, Soaked, floods::Floods, rules::Commits, traffic::Tally, world::Rest};

/// Reasons that this traffic and these floods end in. Whatever else moves has no explanation.
const EXPLAINED: &[&str] = &[
    "established",
    "established_xdp",
    "session_created",
    "half_open",
    "related_icmp",
    "arp",
    "neighbour_discovery",
    "to_host",
    "truncated",
    "ipv4_header_invalid",
    "ipv6_header_invalid",
    "ipv6_extension_invalid",
    "tcp_header_invalid",
    "tcp_flags_invalid",
    "udp_header_invalid",
    "ipv4_checksum_invalid",
    "fragment",
    "fragment_tiny",
    "fragment_invalid",
    "fragment_overlap",
    "fragment_limit",
    "fragment_timeout",
    "fragment_oversize",
    "fragment_no_session",
    "source_route",
    "source_address_invalid",
    "destination_address_invalid",
    "not_for_us",
    "default_deny",
    "policy_deny",
    "policy_reject",
    "host_inbound_deny",
    "policy_changed",
    "tcp_no_session",
    "tcp_reset_out_of_window",
    "tcp_out_of_window",
    "tcp_syn_in_window",
    "tcp_state_invalid",
    "icmp_no_session",
    "icmp_quote_out_of_window",
    "icmp_not_request",
    "wrong_zone",
    "session_closed",
    "session_table_full",
    "syn_cookie_sent",
    "syn_cookie_impossible",
    "syn_proxy_waiting",
    "syn_proxy_reset",
    "screen_syn_flood",
    "screen_land",
    "screen_tcp_no_flags",
    "screen_tcp_syn_fin",
    "screen_tcp_fin_no_ack",
    "screen_ip_bad_option",
    "screen_ip_fragment",
    "screen_ip_spoofing",
    "screen_unknown_protocol",
    "no_route",
    "ttl_exceeded",
];

/// Everything that was seen.
pub struct Findings {
    pub seed: u64,
    pub took: Duration,
    pub soaked: Soaked,
    pub rest: Rest,
    pub account: Account,
    pub memory: (Memory, Memory),
}

/// The report. Its JSON is these fields; durations are seconds and nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The seed, to repeat it.
    pub seed: u64,
    /// How long it went on.
    pub took: Duration,
    /// Conversations.
    pub traffic: Tally,
    /// Floods.
    pub floods: Floods,
    /// Commits.
    pub commits: Commits,
    /// Frames received on the data interfaces.
    pub frames: u64,
    /// Reasons they ended in.
    pub reasons: BTreeMap<String, u64>,
    /// What else the engine counted.
    pub others: BTreeMap<String, u64>,
    /// Until the session tables were empty.
    pub emptied_after: Duration,
    /// Flows that never went.
    pub flows_left: u64,
    /// Memory before.
    pub memory_before: Memory,
    /// Memory after.
    pub memory_after: Memory,
    /// Everything that is not as it should be; empty: the soak passed.
    pub problems: Vec<String>,
}

impl Report {
    /// Judges what was seen.
    pub(crate) fn judge(findings: Findings) -> Self {
        let Findings {
            seed,
            took,
            soaked,
            rest,
            account,
            memory,
        } = findings;
        let mut problems = soaked.tally.problems.clone();
        problems.extend(
            soaked
                .commits
                .refused
                .iter()
                .map(|why| format!("a commit was refused: {why}")),
        );
        problems.extend(account.check().err());
        problems.extend(
            account
                .reasons
                .iter()
                .filter(|(name, _)| !EXPLAINED.contains(&name.as_str()))
                .map(|(name, count)| format!("{count} frames ended in {name}, which nothing here explains")),
        );
        if rest.left != 0 {
            problems.push(format!(
                "{} flows never expired, among them {:#?}",
                rest.left, rest.sample
            ));
        }
        if soaked.commits.committed == 0 || soaked.floods.frames == 0 {
            problems.push("nothing was committed or nothing flooded: that was no soak".to_owned());
        }
        let answered = &soaked.tally.answered;
        if answered.tcp == 0 || answered.udp == 0 || answered.ping == 0 || soaked.tally.denied == 0 {
            problems.push(format!("not every kind of traffic was there: {:?}", soaked.tally));
        }
        problems.extend(memory.1.problems_since(&memory.0));
        Self {
            seed,
            took,
            traffic: soaked.tally,
            floods: soaked.floods,
            commits: soaked.commits,
            frames: account.frames(),
            reasons: account.reasons,
            others: account.others,
            emptied_after: rest.took,
            flows_left: rest.left,
            memory_before: memory.0,
            memory_after: memory.1,
            problems,
        }
    }

    /// Whether all is as it should be.
    #[must_use]
    pub const fn passed(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traffic = &self.traffic;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(f, "soak of {:.0} s, seed {}", self.took.as_secs_f64(), self.seed)?;
        writeln!(
            f,
            "  conversations  {} tcp, {} udp, {} ping answered; {} denied; {} datagrams sent again",
            traffic.answered.tcp,
            traffic.answered.udp,
            traffic.answered.ping,
            traffic.denied,
            traffic.repeated
        )?;
        writeln!(
            f,
            "  content        {:.0} MiB, digests equal; {} exchanges over connections that stayed, the longest {} ms",
            mib(traffic.bytes),
            traffic.exchanges,
            traffic.longest_exchange.as_millis()
        )?;
        writeln!(
            f,
            "  commits        {}, the longest {} ms; {} sessions cleared by command",
            self.commits.committed,
            self.commits.longest.as_millis(),
            self.commits.cleared
        )?;
        writeln!(
            f,
            "  floods         {} with {} frames",
            self.floods.floods, self.floods.frames
        )?;
        writeln!(
            f,
            "  frames         {} entered, {} stand under a reason:",
            self.frames,
            self.reasons.values().sum::<u64>()
        )?;
        for (name, count) in &self.reasons {
            writeln!(f, "    {count:>10}  {name}")?;
        }
        writeln!(f, "  other counters")?;
        for (name, count) in &self.others {
            writeln!(f, "    {count:>10}  {name}")?;
        }
        writeln!(
            f,
            "  session tables empty after {:.1} s, {} flows left",
            self.emptied_after.as_secs_f64(),
            self.flows_left
        )?;
        writeln!(
            f,
            "  memory         maps {:.2} -> {:.2} MiB, resident {:.1} -> {:.1} MiB, descriptors {} -> {}",
            mib(self.memory_before.map_bytes),
            mib(self.memory_after.map_bytes),
            mib(self.memory_before.resident_bytes),
            mib(self.memory_after.resident_bytes),
            self.memory_before.descriptors,
            self.memory_after.descriptors
        )?;
        if self.passed() {
            return write!(f, "passed: nothing lost, nothing left, nothing unexplained");
        }
        write!(f, "FAILED:")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}
