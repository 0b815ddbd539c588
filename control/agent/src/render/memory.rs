//! `show counters --memory`

use crate::report::Memory;
use crate::table::{
    Align::{Left, Right},
    Table,
};
use crate::words;

/// What a table holds, by its name; what is not here needs no explanation to those who ask for it.
const HOLDS: &[(&str, &str)] = &[
    ("ANY_VECTORS", "policies that name nothing"),
    ("DECISIONS", "policy decisions remembered"),
    ("EVENTS", "events on their way to the log"),
    ("EXPECTED", "connections that gateways expect"),
    ("FLOWS4", "IPv4 sessions, two entries each"),
    ("FLOWS6", "IPv6 sessions, two entries each"),
    ("FRAGMENTS", "fragmented datagrams"),
    ("FRAMES", "frames put back"),
    ("HALF_OPEN4", "half-open IPv4 sessions"),
    ("HALF_OPEN6", "half-open IPv6 sessions"),
    ("HOSTS4", "IPv4 addresses of groups"),
    ("HOSTS6", "IPv6 addresses of groups"),
    ("LIMITS", "sessions per address"),
    ("MAPPINGS_INSIDE", "persistent mappings"),
    ("MAPPINGS_OUTSIDE", "persistent mappings"),
    ("NAT_ADDRESSES4", "translated IPv4 addresses"),
    ("NAT_ADDRESSES6", "translated IPv6 addresses"),
    ("NAT_PERMITS", "who may use persistent mappings"),
    ("NAT_RULES", "translation rules"),
    ("NEIGHBOURS", "neighbours"),
    ("POOLS", "address pools"),
    ("PREFIXES4", "IPv4 prefixes of groups"),
    ("PREFIXES6", "IPv6 prefixes of groups"),
    ("ROUTES4", "IPv4 routes"),
    ("ROUTES6", "IPv6 routes"),
    ("RULES", "policies"),
    ("SCREEN_RATES", "rates of screens"),
    ("SCREEN_SCANS", "scans seen by screens"),
    ("SERVICES", "services"),
    ("SERVICE_TIMEOUTS", "timeouts of services"),
    ("SLOW_PATH", "answers on their way out"),
    ("VECTORS", "which policies accept what"),
    ("VECTOR_PAGES", "which policies accept what"),
    ("VECTOR_TOPS", "which policies accept what"),
];

/// One line for each table, the largest first, then the sums.
pub fn memory(report: &Memory) -> String {
    let mut table = Table::new([
        ("TABLE", Left),
        ("HOLDS", Left),
        ("ENTRIES", Right),
        ("ROOM", Right),
        ("FULL", Right),
        ("MEMORY", Right),
    ]);
    for found in &report.tables {
        let holds = HOLDS.iter().find(|(name, _)| *name == found.name);
        let full = match found.capacity {
            0 => String::new(),
            // Whatever is in it at all is not nothing.
            room => format!("{} %", (found.entries.saturating_mul(100)).div_ceil(room)),
        };
        table.row([
            found.name.clone(),
            holds.map(|(_, holds)| (*holds).to_owned()).unwrap_or_default(),
            found.entries.to_string(),
            found.capacity.to_string(),
            full,
            words::bytes(found.bytes),
        ]);
    }
    format!(
        "{}\nTables: {} now, {} at most at this size. Daemon: {}.\n",
        table.render(),
        words::bytes(report.tables_bytes),
        words::bytes(report.most_bytes),
        words::bytes(report.daemon_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn tables_and_their_sums() {
        let text = memory(&fixture::memory());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "TABLE   HOLDS                            ENTRIES     ROOM   FULL   MEMORY",
                "FLOWS4  IPv4 sessions, two entries each    52429   524288   11 %   96 MiB",
                "EVENTS  events on their way to the log         0  1048576    0 %  1.0 MiB",
                "LIVE    -                                      1        1  100 %  4.0 KiB",
                "",
                "Tables: 97 MiB now, 1.0 GiB at most at this size. Daemon: 31 MiB.",
            ]
        );
    }
}
