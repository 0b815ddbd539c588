//! `show screens` for people.

use super::yes;
use crate::report::{Screen, Screens, Verdict};
use crate::table::{
    Align::{Left, Right},
    Table,
};
use crate::words;

/// `show screens`: one line per zone and screen.
pub fn screens(report: &Screens) -> String {
    if report.screens.is_empty() {
        return "no zone has a screen\n".to_owned();
    }
    let mut table = Table::new([
        ("ZONE", Left),
        ("PROFILE", Left),
        ("SCREEN", Left),
        ("ON", Left),
        ("ABOVE", Left),
        ("ACTION", Left),
        ("DROPPED", Right),
        ("ALARMED", Right),
        ("LAST EVENT", Left),
    ]);
    for screen in &report.screens {
        table.row([
            screen.zone.clone(),
            screen.profile.clone().unwrap_or_default(),
            screen.screen.clone(),
            yes(screen.enabled).to_owned(),
            threshold(screen),
            screen.action.clone().unwrap_or_default(),
            screen.dropped.to_string(),
            screen.alarmed.to_string(),
            last_event(screen),
        ]);
    }
    table.render()
}

fn threshold(screen: &Screen) -> String {
    let (Some(most), Some(unit)) = (screen.threshold, &screen.threshold_unit) else {
        return String::new();
    };
    match screen.interval_seconds {
        Some(seconds) => {
            let interval = words::duration(std::time::Duration::from_secs_f64(seconds.max(0.0)));
            format!("{most} {unit} in {interval}")
        }
        None => format!("{most} {unit}"),
    }
}

fn last_event(screen: &Screen) -> String {
    let Some(event) = &screen.last_event else {
        return String::new();
    };
    let verdict = match event.verdict {
        Verdict::Dropped => "dropped",
        Verdict::Forwarded => "went on",
    };
    format!(
        "{} {} > {} {verdict}",
        event.time, event.source_address, event.destination_address
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::Firewall as _;
    use crate::fixture::Fixture;

    #[test]
    fn each_screen_has_a_line() {
        let report = Fixture::default().screens().expect("screens");
        assert_eq!(
            screens(&report),
            "\
ZONE      PROFILE  SCREEN         ON   ABOVE             ACTION  DROPPED  ALARMED  LAST EVENT
internet  edge     icmp_flood     yes  1000 packets/s    drop         41        0  2026-11-22T15:32:33.000001Z 198.51.100.7 > 203.0.113.80 dropped
internet  edge     tcp_port_scan  yes  10 ports in 5 ms  drop          0        3  -
web       -        land           no   -                 -             2        0  -
"
        );
        assert_eq!(screens(&Screens::default()), "no zone has a screen\n");
    }
}
