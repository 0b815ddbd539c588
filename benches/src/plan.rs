//! What a run consists of: scenarios, their points, and how long all of it will take.
//!
//! Owns the choice of contenders and points for the full and for the quick run. The estimates are of a machine with two
//! CPUs; they are printed before anything starts.

use std::time::Duration;

use serde::Serialize;

use crate::contender::Contender;
use crate::frame::Size;

/// A question that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Established 60-byte packets, every contender
    Established,
    /// Established packets, one to a million sessions
    Sessions,
    /// Established packets of 60, 590, 1,514 bytes and mixed
    Sizes,
    /// Every packet a new session
    NewSessions,
    /// New sessions behind 10 to 100,000 rules
    Rules,
    /// New sessions to members of a group of 10 to 1,000,000
    Groups,
    /// Bulk TCP, one and eight streams
    BulkTcp,
    /// Round trips, idle and under load
    Latency,
    /// Replacing a whole policy
    Commit,
    /// One address into a group
    Membership,
    /// The daemon: start, memory, death and restart
    Daemon,
}

impl Scenario {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 11] = [
        Self::Established,
        Self::Sessions,
        Self::Sizes,
        Self::NewSessions,
        Self::Rules,
        Self::Groups,
        Self::BulkTcp,
        Self::Latency,
        Self::Commit,
        Self::Membership,
        Self::Daemon,
    ];

    /// Name in reports and on the command line.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Sessions => "sessions",
            Self::Sizes => "sizes",
            Self::NewSessions => "new-sessions",
            Self::Rules => "rules",
            Self::Groups => "groups",
            Self::BulkTcp => "bulk-tcp",
            Self::Latency => "latency",
            Self::Commit => "commit",
            Self::Membership => "membership",
            Self::Daemon => "daemon",
        }
    }

    /// Heading of its table.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Established => "Established 60-byte UDP, 1,000 sessions",
            Self::Sessions => "Established 60-byte UDP by number of sessions",
            Self::Sizes => "Established UDP by size of frame",
            Self::NewSessions => "Every packet a new session",
            Self::Rules => "Every packet a new session, by number of rules",
            Self::Groups => "Every packet a new session, by size of the destination's group",
            Self::BulkTcp => "Bulk TCP at default offloads, by number of streams",
            Self::Latency => "UDP round trips",
            Self::Commit => "Replacing a policy, by number of rules",
            Self::Membership => "One address into a group, by size of the group",
            Self::Daemon => "The daemon",
        }
    }

    /// What [`crate::series::Series::at`] counts; `None` where there is one point.
    #[must_use]
    pub const fn axis(self) -> Option<&'static str> {
        match self {
            Self::Sessions => Some("sessions"),
            Self::Sizes => Some("bytes"),
            Self::Rules | Self::Commit => Some("rules"),
            Self::Groups | Self::Membership => Some("members"),
            Self::BulkTcp => Some("streams"),
            Self::Daemon => Some("rules or members"),
            Self::Established | Self::NewSessions | Self::Latency => None,
        }
    }

    /// Whether the quick run has it.
    #[must_use]
    pub const fn is_quick(self) -> bool {
        !matches!(self, Self::Sessions | Self::Sizes | Self::Groups)
    }

    /// Those that are measured in it.
    #[must_use]
    pub const fn contenders(self) -> &'static [Contender] {
        use Contender as C;
        match self {
            Self::Established => &C::ESTABLISHED,
            Self::Sessions => &[
                C::Source,
                C::BareXdpLookup,
                C::BulkheadXdp,
                C::BulkheadTcx,
                C::Kernel,
                C::Nftables,
                C::IptablesIpset,
            ],
            Self::Sizes => &[
                C::BareXdp,
                C::BulkheadXdp,
                C::BareTcxPeer,
                C::BulkheadTcx,
                C::Kernel,
                C::Nftables,
                C::IptablesIpset,
            ],
            Self::NewSessions => &[
                C::Source,
                C::BulkheadXdp,
                C::BulkheadTcx,
                C::BulkheadTcxNat,
                C::Nftables,
                C::NftablesMasquerade,
                C::IptablesIpset,
            ],
            Self::Rules => &[
                C::Source,
                C::BulkheadTcx,
                C::Nftables,
                C::NftablesVerdicts,
                C::IptablesIpset,
            ],
            Self::Groups => &[C::BulkheadTcx, C::Nftables, C::IptablesIpset],
            Self::BulkTcp | Self::Latency => &C::SOCKETS,
            Self::Commit => &[C::BulkheadTcx, C::Nftables, C::NftablesVerdicts, C::IptablesIpset],
            Self::Membership => &[C::BulkheadTcx, C::Nftables, C::IptablesIpset],
            Self::Daemon => &[C::BulkheadTcx],
        }
    }
}

/// How a run is done.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Fewer points.
    pub quick: bool,
    /// Rounds of each contender.
    pub rounds: usize,
    /// Length of a round.
    pub length: Duration,
    /// Sessions of [`Scenario::Established`].
    pub flows: u32,
    /// The CPU to measure on.
    pub cpu: usize,
    /// Scenarios to run.
    pub scenarios: Vec<Scenario>,
    /// Only these contenders; empty: all.
    pub only: Vec<Contender>,
}

impl Settings {
    /// The contenders of a scenario that are wanted.
    pub fn contenders(&self, scenario: Scenario) -> impl Iterator<Item = Contender> {
        let all = scenario.contenders().iter().copied();
        all.filter(|contender| self.only.is_empty() || self.only.contains(contender))
    }

    /// Points of a scenario's axis.
    #[must_use]
    pub fn points(&self, scenario: Scenario) -> Vec<u32> {
        match (scenario, self.quick) {
            (Scenario::Sessions, _) => vec![1, 1_000, 100_000, 1_000_000],
            (Scenario::Rules, false) => vec![10, 1_000, 10_000, 100_000],
            (Scenario::Rules, true) => vec![10_000],
            (Scenario::Groups, _) => vec![10, 1_000, 100_000, 1_000_000],
            (Scenario::BulkTcp, false) => vec![1, 8],
            (Scenario::BulkTcp, true) => vec![1],
            (Scenario::Commit, false) => vec![10, 1_000, 10_000, 100_000],
            (Scenario::Commit, true) => vec![10_000],
            (Scenario::Membership, false) => vec![10, 1_000, 10_000, 100_000, 1_000_000],
            (Scenario::Membership, true) => vec![10_000],
            _ => vec![0],
        }
    }

    /// Members of the group that the daemon reads from a file.
    pub const LISTED: u32 = 1_000_000;

    /// Sizes of [`Scenario::Sizes`].
    pub const SIZES: [Size; 4] = [Size::Bytes(60), Size::Bytes(590), Size::Bytes(1_514), Size::Mixed];

    /// About how long a scenario takes: its rounds, each with some overhead, and the making of its labs.
    #[must_use]
    pub fn estimate(&self, scenario: Scenario) -> Duration {
        let contenders = self.contenders(scenario).count() as f64;
        let (rounds, seconds) = (self.rounds as f64, self.length.as_secs_f64());
        let points = self.points(scenario);
        let largest = points.iter().copied().max().unwrap_or(0);
        // Seconds of making a lab, of a round beside its length, of making the largest point.
        let (variants, round, setup, large) = match scenario {
            Scenario::Established => (1.0, seconds + 0.2, 1.0, 6.0),
            Scenario::Sessions => (2.0 * points.len() as f64, seconds + 0.3, 4.0, 40.0),
            Scenario::Sizes => (Self::SIZES.len() as f64, seconds + 0.2, 1.0, 0.0),
            Scenario::NewSessions => (1.0, 0.8, 1.0, 0.0),
            Scenario::Rules => (2.0 * points.len() as f64, 0.8, 1.0, f64::from(largest) * 1e-4),
            Scenario::Groups => (points.len() as f64, 0.8, 1.0, 30.0),
            Scenario::BulkTcp => (points.len() as f64, seconds.max(1.0) + 0.3, 1.0, 0.0),
            Scenario::Latency => (2.0, seconds + 0.1, 1.0, 0.0),
            Scenario::Commit => {
                let rules: u32 = points.iter().sum();
                let mean = f64::from(rules) / points.len() as f64;
                (points.len() as f64, 1.0 + mean * 2e-5, 1.0, 0.0)
            }
            Scenario::Membership => (points.len() as f64, 0.3, 1.0, f64::from(largest) * 3e-5),
            Scenario::Daemon => (1.0, 3.0, 5.0, 20.0),
        };
        Duration::from_secs_f64(contenders * variants * rounds * round + contenders * setup + large)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(quick: bool) -> Settings {
        Settings {
            quick,
            rounds: 3,
            length: Duration::from_millis(500),
            flows: 1_000,
            cpu: 0,
            scenarios: Scenario::ALL
                .into_iter()
                .filter(|scenario| !quick || scenario.is_quick())
                .collect(),
            only: Vec::new(),
        }
    }

    #[test]
    fn the_quick_run_takes_minutes_and_the_full_run_a_quarter_of_an_hour() {
        let sum = |settings: &Settings| -> Duration {
            settings
                .scenarios
                .iter()
                .map(|scenario| settings.estimate(*scenario))
                .sum()
        };
        let (quick, full) = (sum(&settings(true)), sum(&settings(false)));
        assert!(quick <= Duration::from_secs(300), "{quick:?}");
        assert!(full <= Duration::from_secs(900), "{full:?}");
    }

    #[test]
    fn only_who_is_wanted_is_in_a_scenario() {
        let mut settings = settings(false);
        settings.only = vec![Contender::Nftables, Contender::BareXdp];
        let sessions: Vec<_> = settings.contenders(Scenario::Sessions).collect();
        assert_eq!(sessions, [Contender::Nftables]);
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for scenario in Scenario::ALL {
            let value = clap::ValueEnum::to_possible_value(&scenario).expect("a name");
            assert_eq!(value.get_name(), scenario.id());
            assert_eq!(serde_json::to_value(scenario).expect("a name"), scenario.id());
        }
    }
}
