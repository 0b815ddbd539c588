use std::time::Duration;

use super::*;

fn report() -> Report {
    let environment = Environment {
        date: "2026-01-02T03:04:05Z".to_owned(),
        commit: "0123456789ab".to_owned(),
        kernel: "6.18.0".to_owned(),
        cpu: "Some CPU".to_owned(),
        cpus: 2,
        spectre_v2: "unknown".to_owned(),
        load: "0.10".to_owned(),
        nftables: "unknown".to_owned(),
        bulkhead: "0.1.0",
    };
    let method = Method {
        rounds: 2,
        seconds: 0.5,
        flows: 1_000,
        frame_bytes: 60,
        cpu: 1,
    };
    let round = |mpps: f64| {
        FrameRound::new(
            1_000_000,
            1_000_000,
            Duration::from_secs(1),
            Duration::from_secs_f64(1.0 / mpps),
        )
    };
    let stream = |gbps| bulk_tcp::Round {
        bytes: 1,
        wall_seconds: 1.0,
        cpu_seconds: 1.0,
        gbps,
    };
    let frames = vec![
        (Contender::BulkheadTcxNat, None, vec![round(3.0), round(4.0)]),
        (Contender::NftablesMasquerade, None, vec![round(2.0), round(2.0)]),
        (Contender::Kernel, None, Vec::new()),
    ];
    let bulk = vec![
        (Contender::Kernel, vec![stream(20.0)]),
        (Contender::BulkheadTcx, vec![stream(19.0)]),
    ];
    Report::new(environment, method, frames, bulk, Vec::new())
}

#[test]
fn promises_are_judged_from_the_rounds() {
    let report = report();
    let found: Vec<_> = report
        .promises
        .iter()
        .map(|promise| (promise.id, promise.met))
        .collect();
    assert_eq!(
        found,
        [
            ("established_tcx_vs_nftables", false),
            ("bulk_tcp_vs_kernel", false)
        ]
    );
    assert!(
        (report.promises[0].measured - 1.75).abs() < 1e-6,
        "{:?}",
        report.promises[0]
    );
}

#[test]
fn json_has_what_readers_of_promises_look_for() {
    let json = serde_json::to_value(report()).expect("json");
    let promise = &json["promises"][1];
    assert_eq!(promise["id"], "bulk_tcp_vs_kernel");
    assert_eq!(
        (&promise["target"], &promise["measured"]),
        (&1.0.into(), &0.95.into())
    );
    assert_eq!(
        (&promise["unit"], &promise["met"]),
        (&"ratio".into(), &false.into())
    );
    assert_eq!(json["established"][0]["rounds"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        json["established"].as_array().map(Vec::len),
        Some(2),
        "a contender without rounds is left out"
    );
}

#[test]
fn terminal_columns_line_up_and_empty_tables_are_left_out() {
    let text = report().tables(false);
    assert!(!text.contains("test run"), "{text}");
    let lines: Vec<&str> = text
        .lines()
        .skip_while(|line| *line != "Bulk TCP, one stream, default offloads")
        .collect();
    let column = lines[1].find("Gbit/s").expect("a column");
    assert_eq!(&lines[2][column..], "20.0 (20.0 - 20.0)");
    assert_eq!(&lines[3][column..], "19.0 (19.0 - 19.0)");
}

#[test]
fn markdown_rows_have_the_head_s_columns() {
    let text = report().tables(true);
    for table in text.split("## ").skip(1) {
        let columns: Vec<usize> = table
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert!(
            columns.len() > 2 && columns.iter().all(|count| *count == columns[0]),
            "{table}"
        );
    }
}
