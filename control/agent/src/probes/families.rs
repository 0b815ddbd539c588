//! The metrics: what each is called, what it is, and by what it is told apart.
//!
//! One table. The documentation is compared with it by a test, and so is what a live daemon tells. No label is an address; what
//! a configuration names freely ends at [`MOST`] of a kind, and the rest is told as one.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Named things of one kind that are told apart: policies, rules, groups, pools.
pub const MOST: usize = 1_000;
/// What all others together are called. No name of a configuration has parentheses.
pub const OTHERS: &str = "(others)";

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows; its name ends in `_total`.
    Counter,
    /// It comes and goes.
    Gauge,
    /// It is always 1, and its labels tell; its name ends in `_info`.
    Info,
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name, without `bulkhead_` before it and without `_total` or `_info` behind it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: &Family = &Family {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// All of them.
        #[cfg(test)]
        pub const FAMILIES: &[&Family] = &[$($constant),*];
    };
}

families! {
    BUILD = Info "build" ["version", "abi"] "The version of the daemon and of its tables";
    READY = Gauge "ready" [] "Whether /readyz says yes: 1 or 0";
    SELF_TESTS = Counter "self_tests" ["result"] "Self-tests of the data plane: passed or failed";
    GENERATION = Gauge "generation" [] "Generation of the configuration in force";
    REVISION = Gauge "revision" [] "Number of the revision in force";
    COMMITS = Counter "commits" ["result"] "Attempts to commit since the daemon started: committed, unchanged, refused or failed";
    PACKETS = Counter "packets" ["verdict", "reason"] "Packets by their end: each is in exactly one reason";
    OCCURRENCES = Counter "occurrences" ["what"] "Everything else that is counted: events lost and suppressed, alarms, and the like";
    EVENTS_LOST = Counter "events_lost" ["where"] "Events that nobody heard: lost in the ring of the kernel, or by slow observers";
    SESSIONS = Gauge "sessions" ["family", "state"] "Sessions at the last look at the tables, at most ten seconds ago unless that takes long";
    SESSIONS_LIMIT = Gauge "sessions_limit" ["state"] "Sessions that there is room for";
    SESSIONS_CREATED = Counter "sessions_created" [] "Sessions that began";
    SESSIONS_ENDED = Counter "sessions_ended" [] "Sessions that ended";
    POLICY_HITS = Counter "policy_hits" ["policy"] "Conversations that a policy decided about; of denying policies, packets. Begins anew with each generation";
    NAT_HITS = Counter "nat_rule_hits" ["rule", "kind"] "Conversations that a translation rule decided about";
    POOL_SESSIONS = Gauge "nat_pool_sessions" ["pool"] "Sessions with an address of a pool";
    POOL_USED = Gauge "nat_pool_used_ratio" ["pool"] "The same, of all that its addresses and ports allow";
    POOL_ALARM = Gauge "nat_pool_alarm" ["pool"] "Whether its alarm is raised: 1 or 0";
    SCREEN_DROPPED = Counter "screen_dropped_packets" ["zone", "screen"] "Packets that a screen dropped";
    SCREEN_ALARMED = Counter "screen_alarmed_packets" ["zone", "screen"] "Packets that raised a screen's alarm, or were answered in their destination's place";
    GROUP_PREFIXES = Gauge "group_prefixes" ["group"] "Prefixes of an address group, of its own and from its sources";
    SOURCE_AGE = Gauge "group_source_age_seconds" ["group", "source"] "Since when the list of a source is known to be what it is";
    SOURCE_FAILING = Gauge "group_source_failing" ["group", "source"] "Whether the last look at a source failed, or its members are not in force: 1 or 0";
    INTERFACE_INFO = Info "interface" ["interface", "zone", "hook"] "Data interfaces";
    INTERFACE_UP = Gauge "interface_up" ["interface"] "Whether it is up and carries: 1 or 0";
    INTERFACE_ATTACHED = Gauge "interface_attached" ["interface"] "Whether the programs are attached: 1 or 0";
    INTERFACE_RESTORED = Counter "interface_programs_restored" ["interface"] "Programs that somebody took off or replaced and that were put back";
    INTERFACE_RECEIVED = Counter "interface_received_packets" ["interface"] "Packets that the interface received, as the kernel counts";
    INTERFACE_RECEIVED_BYTES = Counter "interface_received_bytes" ["interface"] "Bytes that the interface received";
    INTERFACE_SENT = Counter "interface_sent_packets" ["interface"] "Packets that the interface sent";
    INTERFACE_SENT_BYTES = Counter "interface_sent_bytes" ["interface"] "Bytes that the interface sent";
    TABLES_LIMIT = Gauge "tables_limit_bytes" [] "The most that the tables of this size can take";
    RESIDENT = Gauge "daemon_resident_bytes" [] "What the daemon itself has in memory";
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A whole one.
    Whole(u64),
    /// Any.
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Whole(value.into())
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

type Labels = Vec<(&'static str, String)>;

/// A label's value as the format wants it: the library writes what it is given.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// What a scrape tells.
#[derive(Debug, Default)]
pub struct Page {
    families: Vec<(&'static Family, Vec<(Labels, Value)>)>,
}

impl Page {
    /// Adds a sample; the values of the labels are in the order of the family's.
    pub fn add<const LABELS: usize>(
        &mut self,
        family: &'static Family,
        labels: [&str; LABELS],
        value: impl Into<Value>,
    ) {
        debug_assert_eq!(family.labels.len(), LABELS, "{}", family.name);
        let labels = family
            .labels
            .iter()
            .zip(labels)
            .map(|(name, value)| (*name, escaped(value)))
            .collect();
        let sample = (labels, value.into());
        match self.families.iter_mut().find(|(known, _)| *known == family) {
            Some((_, samples)) => samples.push(sample),
            None => self.families.push((family, vec![sample])),
        }
    }

    /// Adds samples of named things: the first [`MOST`], and the sum of all others.
    pub fn add_named<'n>(&mut self, family: &'static Family, values: impl Iterator<Item = (&'n str, u64)>) {
        let (mut others, mut any) = (0u64, false);
        for (number, (name, value)) in values.enumerate() {
            if number < MOST {
                self.add(family, [name], value);
            } else {
                others = others.saturating_add(value);
                any = true;
            }
        }
        if any {
            self.add(family, [OTHERS], others);
        }
    }

    /// As OpenMetrics text.
    ///
    /// # Errors
    /// If the library refuses, which a string gives no reason for.
    pub fn text(self) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("bulkhead");
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// Writes one sample.
fn number(kind: Kind, value: Value, metric: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
    match (kind, value) {
        (Kind::Counter, Value::Whole(value)) => ConstCounter::new(value).encode(metric),
        (Kind::Counter, Value::Real(value)) => ConstCounter::new(value).encode(metric),
        (_, Value::Whole(value)) => ConstGauge::new(value as f64).encode(metric),
        (_, Value::Real(value)) => ConstGauge::new(value).encode(metric),
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (family, samples) in &self.families {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Info => MetricType::Info,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            if family.labels.is_empty() {
                // One sample, and no braces.
                if let Some((_, value)) = samples.first() {
                    number(family.kind, *value, metric)?;
                }
                continue;
            }
            for (labels, value) in samples {
                match family.kind {
                    Kind::Info => metric.encode_info(labels)?,
                    kind => number(kind, *value, metric.encode_family(labels)?)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    impl Kind {
        /// As the documentation and the exposition write it.
        const fn name(self) -> &'static str {
            match self {
                Self::Counter => "counter",
                Self::Gauge => "gauge",
                Self::Info => "info",
            }
        }
    }

    impl Family {
        /// The name that a query uses.
        fn full_name(&self) -> String {
            let suffix = match self.kind {
                Kind::Counter => "_total",
                Kind::Gauge => "",
                Kind::Info => "_info",
            };
            format!("bulkhead_{}{suffix}", self.name)
        }
    }

    /// The table of the documentation, in Markdown.
    fn documented() -> String {
        let mut text = String::from("| metric | type | labels | what it is |\n|---|---|---|---|\n");
        for family in FAMILIES {
            let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            // Writing to a string cannot fail.
            let _infallible = writeln!(
                text,
                "| `{}` | {} | {} | {} |",
                family.full_name(),
                family.kind.name(),
                labels.join(", "),
                family.help
            );
        }
        text
    }

    #[test]
    fn names_are_as_openmetrics_wants_them() {
        for family in FAMILIES {
            let words =
                |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !text.ends_with('_');
            assert!(words(family.name), "{}", family.name);
            assert!(family.labels.iter().all(|label| words(label)), "{}", family.name);
            for suffix in ["_total", "_info", "_count", "_sum"] {
                assert!(!family.name.ends_with(suffix), "{}", family.name);
            }
            assert!(!family.help.ends_with('.'), "{}", family.name);
        }
        let mut names: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len());
    }

    #[test]
    fn a_page_is_text() {
        let mut page = Page::default();
        page.add(SESSIONS, ["ipv4", "established"], 5u64);
        page.add(BUILD, ["0.1.0", "7"], 1u64);
        page.add(POOL_USED, ["a\"b"], 0.25);
        page.add(PACKETS, ["passed", "arp"], u64::MAX);
        let text = page.text().expect("text");
        for line in [
            "# TYPE bulkhead_sessions gauge",
            "bulkhead_sessions{family=\"ipv4\",state=\"established\"} 5.0",
            "bulkhead_build_info{version=\"0.1.0\",abi=\"7\"} 1",
            "bulkhead_nat_pool_used_ratio{pool=\"a\\\"b\"} 0.25",
            "bulkhead_packets_total{verdict=\"passed\",reason=\"arp\"} 18446744073709551615",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn named_things_end_at_a_thousand() {
        let names: Vec<String> = (0..MOST + 5).map(|number| format!("p{number}")).collect();
        let mut page = Page::default();
        page.add_named(POLICY_HITS, names.iter().map(|name| (name.as_str(), 2)));
        let text = page.text().expect("text");
        assert!(text.contains("bulkhead_policy_hits_total{policy=\"(others)\"} 10\n"));
        let samples = text
            .lines()
            .filter(|line| line.starts_with("bulkhead_policy_hits_total"));
        assert_eq!(samples.count(), MOST + 1);
    }

    #[test]
    fn the_documentation_lists_every_metric() {
        let page = include_str!("../../../../deploy/docs/metrics.md");
        assert!(
            page.contains(&documented()),
            "put this into deploy/docs/metrics.md:\n{}",
            documented()
        );
    }
}
