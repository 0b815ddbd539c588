use super::*;
use crate::contender::Contender;
use crate::series::Unit;

fn point(scenario: Scenario, contender: Contender, at: u64) -> Point {
    Point {
        scenario,
        contender,
        variant: "",
        at,
    }
}

fn report() -> Report {
    let environment = Environment {
        date: "2026-01-02T03:04:05Z".to_owned(),
        commit: "0123456789ab".to_owned(),
        kernel: "6.18.0".to_owned(),
        cpu: "Some CPU".to_owned(),
        cpus: 2,
        spectre_v2: "unknown".to_owned(),
        load: "0.10".to_owned(),
        nftables: "nftables v1".to_owned(),
        ipset: "ipset v7".to_owned(),
        bulkhead: "0.1.0",
    };
    let method = Method {
        rounds: 2,
        seconds: 0.5,
        flows: 1_000,
        cpu: 1,
        quick: true,
        scenarios: vec![Scenario::Established, Scenario::BulkTcp],
        took_seconds: 61,
    };
    let mut results = Results::default();
    let established = |contender| point(Scenario::Established, contender, 0);
    results.add(established(Contender::BulkheadTcxNat), Unit::Mpps, vec![3.0, 4.0]);
    results.add(
        established(Contender::NftablesMasquerade),
        Unit::Mpps,
        vec![2.0, 2.0],
    );
    results.add(
        point(Scenario::BulkTcp, Contender::Kernel, 1),
        Unit::Gbps,
        vec![20.0],
    );
    results.add(
        point(Scenario::BulkTcp, Contender::BulkheadTcx, 1),
        Unit::Gbps,
        vec![19.0],
    );
    results.add(
        point(Scenario::BulkTcp, Contender::Kernel, 8),
        Unit::Gbps,
        vec![21.0],
    );
    results.notes.push("something happened".to_owned());
    Report::new(environment, method, results)
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
    let series = &json["series"][0];
    assert_eq!(series["scenario"], "established");
    assert_eq!(series["contender"], "bulkhead-tcx-nat");
    assert_eq!(series["unit"], "Mpps");
    assert_eq!(series["median"], 3.5);
    assert_eq!(series["rounds"].as_array().map(Vec::len), Some(2));
}

#[test]
fn terminal_columns_line_up_and_empty_tables_are_left_out() {
    let text = report().terminal();
    assert!(!text.contains("test run"), "{text}");
    let lines: Vec<&str> = text
        .lines()
        .skip_while(|line| *line != Scenario::BulkTcp.title())
        .collect();
    let column = lines[1].find("1 streams").expect("a column");
    assert!(lines[2][column..].starts_with("20.0 (20.0 - 20.0)"), "{text}");
    assert!(lines[3][column..].starts_with("19.0 (19.0 - 19.0)"), "{text}");
}

#[test]
fn markdown_rows_have_the_head_s_columns_and_plots_their_tables() {
    let report = report();
    let plots = vec![(Scenario::BulkTcp, "full-bulk-tcp.svg".to_owned())];
    let text = report.markdown("A benchmark", &plots);
    for table in text.split("## ").skip(1) {
        let columns: Vec<usize> = table
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert!(columns.iter().all(|count| *count == columns[0]), "{table}");
    }
    let plot = text.find("](full-bulk-tcp.svg)").expect("the plot");
    assert!(plot > text.find(Scenario::BulkTcp.title()).expect("its table"));
    assert!(text.contains("* something happened"), "{text}");
    assert!(text.contains("1 min 1 s"), "{text}");
    assert!(text.contains("## Not measured\n\n* IPv6"), "{text}");
}

#[test]
fn figures_keep_three_digits() {
    assert_eq!(
        [0.0, 0.05, 0.5, 5.0, 50.0, 500.0].map(decimals),
        [0, 4, 2, 2, 1, 0]
    );
    assert_eq!(
        [1, 999, 1_000, 1_234_567].map(thousands),
        ["1", "999", "1,000", "1,234,567"]
    );
}
