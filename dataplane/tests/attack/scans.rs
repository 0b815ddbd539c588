//! nmap across the firewall: what policy denies is never seen open, and every probe stands under a reason.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_testkit::{Account, Tool, privileged};

use crate::{
    arena::{Arena, Position},
    reasons,
};

/// A port as nmap saw it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    port: u16,
    state: String,
}

/// Scans the server from a stranger's host, and says what was seen.
fn scan(kind: &[&str], six: bool) -> Result<(Vec<Seen>, Account, String)> {
    let arena = Arena::new(Position::Stranger)?;
    let siege = arena.besiege()?;
    siege.run();
    let outside = arena.outside();
    let target = if six {
        outside.v6.to_string()
    } else {
        outside.v4.to_string()
    };
    // -Pn: the answer to a ping is none of this; -oG: one line for a program to read.
    let mut arguments = vec![
        "-n",
        "-Pn",
        "-T4",
        "--max-retries",
        "1",
        "--host-timeout",
        "45s",
        "-oG",
        "-",
    ];
    arguments.extend(kind);
    if six {
        arguments.push("-6");
    }
    arguments.push(&target);
    let output = Tool::new("nmap")
        .args(&arguments)
        .patience(Duration::from_secs(50))
        .run(&arena.attacker().namespace)?
        .success()?;
    let account = siege.lift(&reasons::SCAN)?;
    let seen = ports(&output.stdout).with_context(|| format!("nmap {arguments:?} said {output:?}"))?;
    Ok((seen, account, output.stdout))
}

/// `Host: 10.77.1.2 ()  Ports: 80/open/tcp//http///, 9999/closed/tcp/////  Ignored State: filtered (98)`
fn ports(report: &str) -> Option<Vec<Seen>> {
    let line = report
        .lines()
        .find(|line| line.contains("Ports: ") || line.contains("Status: Up"))?;
    let line = report
        .lines()
        .find(|line| line.contains("Ports: "))
        .unwrap_or(line);
    let list = line.split_once("Ports: ").map_or("", |(_, rest)| rest);
    let list = list.split('\t').next().unwrap_or("");
    list.split(", ")
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            let mut fields = entry.trim().split('/');
            Some(Seen {
                port: fields.next()?.parse().ok()?,
                state: fields.next()?.to_owned(),
            })
        })
        .collect()
}

/// What is seen of TCP ports by a scan that opens none.
fn stealth(kind: &str, reason: &str) -> Result<()> {
    for six in [false, true] {
        let (seen, account, report) = scan(&[kind, "-p", "70-99,9999"], six)?;
        // Silence is all there is: neither "open" nor "closed" nor "unfiltered" may be concluded.
        for port in &seen {
            ensure!(
                matches!(port.state.as_str(), "filtered" | "open|filtered"),
                "{port:?} through a {kind} scan: {report}"
            );
        }
        ensure!(account.of(reason) >= 31, "31 ports probed: {account:#?}");
    }
    Ok(())
}

#[test]
fn attack_nmap_syn_scan() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    for six in [false, true] {
        let (seen, account, report) = scan(&["-sS", "-p", "1-200,9999"], six)?;
        for port in &seen {
            let expected = match port.port {
                80 => "open",
                // Rejected aloud, by policy.
                9999 => "closed",
                _ => "filtered",
            };
            ensure!(port.state == expected, "{port:?} is not {expected}: {report}");
        }
        ensure!(
            seen.iter().any(|port| port.port == 80),
            "port 80 is open: {report}"
        );
        ensure!(
            account.of("default_deny") >= 199,
            "199 ports are denied: {account:#?}"
        );
        ensure!(account.of("policy_reject") >= 1, "{account:#?}");
    }
    Ok(())
}

#[test]
fn attack_nmap_null_scan() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    stealth("-sN", "tcp_flags_invalid")
}

#[test]
fn attack_nmap_fin_scan() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    stealth("-sF", "tcp_flags_invalid")
}

#[test]
fn attack_nmap_xmas_scan() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    stealth("-sX", "tcp_flags_invalid")
}

#[test]
fn attack_nmap_ack_scan() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    stealth("-sA", "tcp_no_session")
}

#[test]
fn attack_nmap_udp_scan() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let (seen, account, report) = scan(&["-sU", "-p", "50-60,123,161,500"], false)?;
    for port in &seen {
        let expected = if port.port == 53 { "open" } else { "open|filtered" };
        ensure!(port.state == expected, "{port:?} is not {expected}: {report}");
    }
    ensure!(
        account.of("default_deny") >= 13,
        "13 ports are denied: {account:#?}"
    );
    Ok(())
}

#[test]
fn attack_nmap_system_detection() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let (seen, account, report) = scan(&["-sS", "-O", "-p", "80,81,9999"], false)?;
    for port in &seen {
        ensure!(
            port.state != "open" || port.port == 80,
            "{port:?} is seen open: {report}"
        );
    }
    // Its probes with flags that no stack sends.
    ensure!(account.of("tcp_flags_invalid") > 0, "{account:#?}");
    Ok(())
}
