//! `doctor` and `check`: what was looked at, whether it will do, and what to do if not.

use crate::report::{Check, CheckStatus, Checked, Doctor, InterfaceChecks};
use crate::table::printable;
use crate::words;

/// One line per check, what to do below it.
pub fn doctor(report: &Doctor) -> String {
    let mut text = format!("Kernel {}\n\n", printable(&report.kernel));
    report.checks.iter().for_each(|found| text += &check(found));
    if !report.interfaces.is_empty() {
        text.push('\n');
    }
    report
        .interfaces
        .iter()
        .for_each(|found| text += &interface(found));
    let checks = report.checks.iter().map(|check| check.status);
    let every: Vec<_> = checks
        .chain(report.interfaces.iter().map(|interface| interface.status))
        .collect();
    let count = |status| every.iter().filter(|found| **found == status).count() as u64;
    let conclusion = match report.ok {
        true => "bulkhead runs here",
        false => "bulkhead does not run here until the failures are mended",
    };
    text += &format!(
        "\n{}, {}: {conclusion}\n",
        words::count(count(CheckStatus::Fail), "failure", "failures"),
        words::count(count(CheckStatus::Warn), "warning", "warnings"),
    );
    text
}

const fn status(status: CheckStatus) -> &'static str {
    match status {
        CheckStatus::Ok => "ok  ",
        CheckStatus::Warn => "warn",
        CheckStatus::Fail => "FAIL",
    }
}

fn check(check: &Check) -> String {
    let mut text = format!(
        "{}  {}: {}\n",
        status(check.status),
        printable(&check.name),
        printable(&check.found)
    );
    if let Some(remedy) = &check.remedy {
        text += &format!("      {}\n", printable(remedy));
    }
    text
}

fn interface(found: &InterfaceChecks) -> String {
    let mut facts: Vec<String> = [&found.kind, &found.driver]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    // A veth's driver is called veth: once is enough.
    facts.dedup();
    facts.extend(found.mtu_bytes.map(|mtu| format!("MTU {mtu} B")));
    if let (Some(rx), Some(tx)) = (found.rx_queues, found.tx_queues) {
        facts.push(format!("{rx} rx and {tx} tx queues"));
    }
    let mut text = format!("{}  {}", status(found.status), printable(&found.name));
    if !facts.is_empty() {
        text += &format!(" ({})", facts.join(", "));
    }
    text += &format!(": {}\n", printable(&found.hook_reason));
    found
        .warnings
        .iter()
        .for_each(|warning| text += &format!("      {}\n", printable(warning)));
    text
}

/// One line per sound file, with what there is of each kind. What is wrong with the others is rendered where their text is at hand.
pub fn checked(report: &Checked) -> String {
    let line = |file: &crate::report::CheckedFile| {
        let defines: Vec<String> = file
            .defines
            .iter()
            .filter(|(_, number)| **number > 0)
            .map(|(kind, number)| format!("{kind}: {number}"))
            .collect();
        format!("{}: ok ({})\n", file.file, defines.join(", "))
    };
    report.files.iter().filter(|file| file.ok).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_stand_below_what_was_found() {
        let report = Doctor {
            ok: false,
            kernel: "6.1.0".into(),
            checks: vec![
                Check {
                    name: "bpf".into(),
                    status: CheckStatus::Ok,
                    found: "maps and programs can be made".into(),
                    remedy: None,
                },
                Check {
                    name: "kernel".into(),
                    status: CheckStatus::Fail,
                    found: "6.1.0 has no TCX links".into(),
                    remedy: Some("run a newer kernel".into()),
                },
            ],
            interfaces: vec![
                InterfaceChecks {
                    name: "net1".into(),
                    status: CheckStatus::Warn,
                    kind: Some("veth".into()),
                    driver: Some("veth".into()),
                    mtu_bytes: Some(9_000),
                    rx_queues: Some(1),
                    tx_queues: Some(2),
                    hook: Some("tcx".into()),
                    hook_reason: "TCX alone: a veth".into(),
                    warnings: vec!["net1 has no carrier".into()],
                },
                InterfaceChecks {
                    name: "net2".into(),
                    status: CheckStatus::Fail,
                    kind: None,
                    driver: None,
                    mtu_bytes: None,
                    rx_queues: None,
                    tx_queues: None,
                    hook: None,
                    hook_reason: "there is no such interface".into(),
                    warnings: vec![],
                },
            ],
        };
        let expected = "\
Kernel 6.1.0

ok    bpf: maps and programs can be made
FAIL  kernel: 6.1.0 has no TCX links
      run a newer kernel

warn  net1 (veth, MTU 9000 B, 1 rx and 2 tx queues): TCX alone: a veth
      net1 has no carrier
FAIL  net2: there is no such interface

2 failures, 1 warning: bulkhead does not run here until the failures are mended
";
        assert_eq!(doctor(&report), expected);
    }

    #[test]
    fn a_machine_without_faults_is_told_so() {
        let report = Doctor {
            ok: true,
            kernel: "6.18.0".into(),
            checks: vec![],
            interfaces: vec![],
        };
        assert_eq!(
            doctor(&report),
            "Kernel 6.18.0\n\n\n0 failures, 0 warnings: bulkhead runs here\n"
        );
    }
}
