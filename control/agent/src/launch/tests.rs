//! Precedence of every setting, and what stops a start.

use clap::Parser as _;

use super::*;

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    run: RunArgs,
}

fn args(words: &[&str]) -> RunArgs {
    Arguments::parse_from(["run"].iter().chain(words)).run
}

fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let own = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    variables.iter().map(own).collect()
}

/// A start that is complete but for what is tried.
fn launch(words: &[&str], variables: &[(&str, &str)]) -> Result<Launch, Refusal> {
    let mut words = words.to_vec();
    let sources = [
        ("--config", "BULKHEAD_CONFIG"),
        ("--config-map", "BULKHEAD_CONFIG_MAP"),
        ("--firewall-resource", "BULKHEAD_FIREWALL_RESOURCE"),
    ];
    let named = |(flag, variable): (&str, &str)| {
        words.contains(&flag) || variables.iter().any(|(name, _)| *name == variable)
    };
    if !sources.into_iter().any(named) {
        words.extend(["--config", "firewall.yaml"]);
    }
    resolve(&args(&words), environment(variables))
}

#[track_caller]
fn refused(words: &[&str], variables: &[(&str, &str)]) -> String {
    launch(words, variables).expect_err("a refusal").to_string()
}

/// Of each setting two values in our words, and the second as its other name has it.
const VALUES: &[(Key, [&str; 2], &str)] = &[
    (Key::Config, ["a.yaml", "b.yaml"], ""),
    (Key::ConfigMap, ["edge/a", "edge/b/fw.yaml"], ""),
    (Key::FirewallResource, ["edge/a", "edge/b"], ""),
    (Key::MountedConfigMap, ["edge/a", "edge/b/fw.yaml"], ""),
    (Key::Kubeconfig, ["/a", "/b"], ""),
    (Key::Instance, ["edge-0", "edge-1"], ""),
    (Key::NetworkPolicies, ["on", "off"], ""),
    (Key::State, ["/a", "/b"], ""),
    (Key::Revisions, ["10", "20"], ""),
    (Key::Socket, ["/a.sock", "/b.sock"], ""),
    (Key::Pins, ["none", "/sys/fs/bpf/b"], ""),
    (Key::OnExit, ["keep", "detach"], ""),
    (Key::Drain, ["10s", "20s"], ""),
    (Key::LogFormat, ["text", "json"], ""),
    (Key::Forwarding, ["routed", "wire"], "wire"),
    (Key::Size, ["small", "large"], "large"),
    (Key::Ports, ["2", "3"], "4"),
    (Key::OnMissing, ["wait", "stop"], ""),
    (Key::Addresses, ["add", "keep"], "yes"),
    (Key::ManagementInterface, ["eth9", "last"], "yes"),
    (Key::Management, ["127.0.0.1:1", "127.0.0.1:2"], ""),
    (Key::ManagementServer, ["https://a:4320", "wss://b"], ""),
    (Key::EnrolmentToken, ["@/run/a", "secret"], ""),
    (Key::ControlCpus, ["0-1", "0x1"], "1"),
    (Key::DataCpus, ["0-1", "0x3"], "3"),
    (Key::ArpTimeout, ["10s", "20s"], "20"),
    (Key::NdpTimeout, ["10s", "20s"], "20"),
];

/// The variables of cSRX that have a meaning here, each with a value that it can have there.
const TAKEN: &[(&str, &str)] = &[
    ("CSRX_FORWARD_MODE", "routing"),
    ("CSRX_PORT_NUM", "3"),
    ("CSRX_SIZE", "CSRX-2CPU-4G"),
    ("CSRX_CTRL_CPU", "0x1"),
    ("CSRX_DATA_CPU", "0x1"),
    ("CSRX_ARP_TIMEOUT", "300"),
    ("CSRX_NDP_TIMEOUT", "300"),
    ("CSRX_AUTO_ASSIGN_IP", "yes"),
    ("CSRX_MGMT_PORT_REORDER", "yes"),
];

/// Those that have none, in order. From what cSRX documents, not from the table that is held against them.
const WITHOUT_A_MEANING: &[&str] = &[
    "CSRX_DPDK_VDEV",
    "CSRX_HUGEPAGES",
    "CSRX_JUNOS_CONFIG",
    "CSRX_LICENSE_FILE",
    "CSRX_PACKET_DRIVER",
    "CSRX_ROOT_PASSWORD",
    "CSRX_SD_DEVICE_IP",
    "CSRX_SD_DEVICE_PORT",
    "CSRX_SD_HOST",
    "CSRX_SD_USER",
    "CSRX_TCP_CKSUM_CALC",
];

#[test]
fn the_command_line_beats_the_environment_whatever_the_setting() {
    let covered: Vec<Key> = VALUES.iter().map(|(key, ..)| *key).collect();
    let all: Vec<Key> = SETTINGS.iter().map(|setting| setting.key).collect();
    assert_eq!(covered, all, "every setting, in the order of the table");
    for (setting, (_, [first, second], elsewhere)) in SETTINGS.iter().zip(VALUES) {
        let flag = format!("--{}", setting.name);
        let decided = |words: &[&str], variables: &[(&str, &str)]| {
            let launch = launch(words, variables).unwrap_or_else(|error| panic!("{flag}: {error}"));
            let chosen = launch
                .chosen
                .into_iter()
                .find(|chosen| chosen.setting.key == setting.key);
            let chosen = chosen.expect("every setting is decided");
            (chosen.value, chosen.origin)
        };
        let first = (*first).to_owned();
        let second = (*second).to_owned();
        let own = (setting.variable, second.as_str());
        assert_eq!(
            decided(&[&flag, &first], &[own]),
            (Some(first.clone()), Origin::CommandLine(flag.clone()))
        );
        assert_eq!(
            decided(&[], &[own]),
            (
                Some(second.clone()),
                Origin::Environment(setting.variable.to_owned())
            )
        );
        // Which is what every other one of these starts has.
        if setting.key != Key::Config {
            let default = Some(setting.default.to_owned()).filter(|default| !default.is_empty());
            assert_eq!(decided(&[], &[]), (default, Origin::Default));
        }
        let Some(alias) = setting.alias else {
            assert_eq!(*elsewhere, "", "{flag} has no other name");
            continue;
        };
        let other = (alias.variable, *elsewhere);
        assert_eq!(
            decided(&[], &[other]),
            (Some(second.clone()), Origin::Alias(alias.variable.to_owned()))
        );
        assert_eq!(
            decided(&[], &[own, other]),
            (
                Some(second.clone()),
                Origin::Environment(setting.variable.to_owned())
            ),
            "two names that agree"
        );
        assert_eq!(
            decided(&[&flag, &first], &[other]),
            (Some(first.clone()), Origin::CommandLine(flag.clone()))
        );
        let disagree = refused(&[], &[(setting.variable, &first), other]);
        assert!(
            disagree.contains(setting.variable) && disagree.contains(alias.variable),
            "{disagree}"
        );
    }
}

#[test]
fn values_arrive_in_their_types() {
    let launch = launch(
        &["--forwarding", "wire", "--on-missing", "wait", "--drain", "30s"],
        &[
            ("BULKHEAD_SIZE", "large"),
            ("BULKHEAD_PORTS", "3"),
            ("BULKHEAD_CONTROL_CPUS", "0-1,3"),
            ("CSRX_MGMT_PORT_REORDER", "no"),
            ("CSRX_AUTO_ASSIGN_IP", "yes"),
            ("CSRX_ARP_TIMEOUT", "300"),
            ("BULKHEAD_MANAGEMENT", ":9360"),
            ("UNRELATED", "x"),
            ("BULKHEAD_SLOWNESS", "5"),
            ("BULKHEAD_TEST_RULES", "x"),
        ],
    )
    .expect("a launch");
    assert_eq!(
        launch.terms.overrides.forwarding,
        Some(bulkhead_config::Forwarding::Wire)
    );
    assert_eq!(
        launch.terms.overrides.size,
        Some(bulkhead_config::SizeName::Large)
    );
    assert_eq!(launch.terms.ports, Some(3));
    assert_eq!(launch.terms.addresses, Addresses::Keep);
    assert_eq!(launch.terms.management, ManagementInterface::First);
    assert!(launch.terms.wait && launch.on_missing == OnMissing::Wait);
    assert_eq!(launch.control_cpus, [0, 1, 3]);
    assert_eq!(launch.arp_timeout, Some(Duration::from_secs(300)));
    assert_eq!(launch.ndp_timeout, None);
    assert_eq!(launch.management, Some(Listen::Interface(9360)));
    assert_eq!(launch.drain, Duration::from_secs(30));
    assert!(launch.warnings.is_empty());
}

#[test]
fn nothing_is_ignored_in_silence() {
    let text = refused(
        &["--size", "larg"],
        &[
            ("BULKHEAD_FORWARDIN", "wire"),
            ("BULKHEAD_PORTS", "0"),
            ("BULKHEAD_XYZZY", "secret"),
            ("CSRX_SIZE", "huge"),
        ],
    );
    for line in [
        "bulkhead: CSRX_SIZE=\"huge\" cannot be: it can be large, or a size such as CSRX-2CPU-4G",
        "bulkhead: BULKHEAD_FORWARDIN is no setting; did you mean BULKHEAD_FORWARDING?",
        "bulkhead: BULKHEAD_XYZZY is no setting",
        "bulkhead: --size=\"larg\" cannot be: it can be small, medium, large or xlarge; did you mean large?",
        "bulkhead: BULKHEAD_PORTS=\"0\" cannot be: it can be 1 to 15, the data interfaces; that for management is not counted",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn names_that_mean_nothing_here_are_warned_about_and_their_values_are_not_told() {
    let launch = launch(
        &[],
        &[
            ("CSRX_ROOT_PASSWORD", "hunter2"),
            ("CSRX_HUGEPAGES", "yes"),
            ("CSRX_NO_SUCH", "1"),
        ],
    )
    .expect("a launch");
    let all = launch.warnings.join("\n");
    assert_eq!(launch.warnings.len(), 3, "{all}");
    assert!(
        all.contains("CSRX_ROOT_PASSWORD means nothing here: nobody logs in here"),
        "{all}"
    );
    assert!(
        all.contains("CSRX_NO_SUCH means nothing here: nobody knows that variable"),
        "{all}"
    );
    assert!(!all.contains("hunter2"), "{all}");
}

/// Kubernetes tells containers of Services by such variables, and a Service may well be called `bulkhead`.
#[test]
fn what_kubernetes_says_of_a_service_is_no_setting_and_no_fault() {
    let links = [
        ("BULKHEAD_SERVICE_HOST", "10.96.0.9"),
        ("BULKHEAD_SERVICE_PORT", "9360"),
        ("BULKHEAD_SERVICE_PORT_METRICS", "9360"),
        ("BULKHEAD_PORT", "tcp://10.96.0.9:9360"),
        ("BULKHEAD_PORT_9360_TCP", "tcp://10.96.0.9:9360"),
        ("BULKHEAD_PORT_9360_TCP_PROTO", "tcp"),
        ("BULKHEAD_PORT_9360_TCP_PORT", "9360"),
        ("BULKHEAD_PORT_9360_TCP_ADDR", "10.96.0.9"),
        ("BULKHEAD_METRICS_SERVICE_HOST", "10.96.0.10"),
    ];
    let launch = launch(&[], &links).expect("a launch");
    assert_eq!(launch.warnings.len(), links.len());
    for name in ["BULKHEAD_PORT", "BULKHEAD_PORT_9360_FOO", "BULKHEAD_PORT_X_TCP"] {
        assert!(refused(&[], &[(name, "3")]).contains("is no setting"), "{name}");
    }
}

#[test]
fn a_start_needs_a_configuration_and_probes_a_place() {
    let nothing = resolve(&args(&[]), []).expect_err("nothing to start with");
    assert!(
        nothing
            .to_string()
            .contains("name one with --config or BULKHEAD_CONFIG"),
        "{nothing}"
    );
    resolve(&args(&["--state", "/var/lib/x"]), []).expect("revisions may be there");
    let object = |words: &[&str], variables: &[(&str, &str)]| {
        let launch = resolve(&args(words), environment(variables)).expect("a launch");
        (launch.object.map(|place| place.to_string()), launch.config)
    };
    assert_eq!(
        object(&["--config-map", "edge/policy/fw.yaml"], &[]),
        (Some("configmap edge/policy/fw.yaml".to_owned()), None)
    );
    assert_eq!(
        object(&[], &[("BULKHEAD_FIREWALL_RESOURCE", "edge/policy")]),
        (Some("firewall edge/policy".to_owned()), None)
    );
    resolve(&args(&[]), environment(&[("BULKHEAD_STATE", "/x")])).expect("the same by a variable");
    let text = refused(&["--management", ":9360"], &[]);
    assert!(text.contains("no interface is for management"), "{text}");
    launch(&["--management", ":9360", "--management-interface", "eth0"], &[]).expect("a launch");
}

#[test]
fn a_token_is_never_printed_and_what_is_not_done_is_said() {
    let named = [
        ("BULKHEAD_MANAGEMENT_SERVER", "https://director.example:4320"),
        ("BULKHEAD_ENROLMENT_TOKEN", "s3cret"),
    ];
    let enrolled = launch(&[], &named).expect("a launch");
    assert!(
        enrolled
            .warnings
            .iter()
            .any(|warning| warning.contains("does not register")),
        "{:?}",
        enrolled.warnings
    );
    let contract = |variables: &[(&str, &str)]| {
        let launch = resolve(&args(&["--state", "/x"]), environment(variables)).expect("a launch");
        render(&launch.contract().expect("a contract"))
    };
    let shown = contract(&named);
    assert!(shown.contains("https://director.example:4320"), "{shown}");
    assert!(
        !shown.contains("s3cret") && shown.contains("(not shown)"),
        "{shown}"
    );
    let file = contract(&[("BULKHEAD_ENROLMENT_TOKEN", "@/run/secrets/token")]);
    assert!(file.contains("@/run/secrets/token"), "{file}");
    let clear = refused(&[], &[("BULKHEAD_MANAGEMENT_SERVER", "http://director.example")]);
    assert!(clear.contains("https://"), "{clear}");
}

#[test]
fn the_configuration_is_in_one_place() {
    for (words, variables, line) in [
        (
            &["--config-map", "edge/a", "--firewall-resource", "edge/a"][..],
            &[][..],
            "--config-map and --firewall-resource each say where the configuration is",
        ),
        (
            &["--config-map", "edge/a"],
            &[("BULKHEAD_CONFIG", "a.yaml")],
            "BULKHEAD_CONFIG and --config-map each say where the configuration is",
        ),
        (
            &["--firewall-resource", "edge"],
            &[],
            "--firewall-resource=\"edge\" cannot be: write NAMESPACE/NAME",
        ),
        (
            &["--instance", "Edge 0"],
            &[],
            "--instance=\"Edge 0\" cannot be: it can be the name of a pod",
        ),
        (
            &["--mounted-config-map", "edge/a", "--config-map", "edge/a"],
            &[],
            "--mounted-config-map says which ConfigMap the configuration file is mounted from, and no file is named",
        ),
    ] {
        let text = refused(words, variables);
        assert!(text.contains(line), "{text}");
        assert!(!text.contains("there is no configuration"), "{text}");
    }
}

#[test]
fn the_key_of_a_mounted_config_map_is_called_as_the_file() {
    let mounted = |file: &str, map: &str| {
        let words = ["--config", file, "--mounted-config-map", map];
        let launch = launch(&words, &[]).expect("a launch");
        launch.mounted.map(|place| place.to_string())
    };
    assert_eq!(
        mounted("/etc/bulkhead/fw.yaml", "edge/policy").as_deref(),
        Some("configmap edge/policy/fw.yaml")
    );
    assert_eq!(
        mounted("/etc/bulkhead/fw.yaml", "edge/policy/other").as_deref(),
        Some("configmap edge/policy/other")
    );
}

#[test]
fn a_document_is_judged_by_the_terms_of_the_start() {
    const DOCUMENT: &str = "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: edge }\nspec:\n  \
                            zones: [{ name: a }]\n  interfaces: [{ name: lo, zone: a, addresses: [10.0.0.1/24] }]\n";
    use crate::configuration::{Configuration, Refused};
    let judge = |terms: &Terms| Configuration::of("x.yaml", DOCUMENT.as_bytes(), terms);
    let message = |error: anyhow::Error| {
        let refused: &Refused = error.downcast_ref().expect("a refusal");
        let [finding] = &refused.diagnostics[..] else {
            panic!("{refused}")
        };
        (finding.to_string(), refused.missing.clone())
    };
    let as_it_is = judge(&Terms::default()).expect("sound");
    assert_eq!(as_it_is.parsed.config.interfaces[0].addresses.len(), 1);
    let keep = Terms {
        addresses: Addresses::Keep,
        ports: Some(1),
        ..Terms::default()
    };
    let kept = judge(&keep).expect("sound");
    assert!(kept.parsed.config.interfaces[0].addresses.is_empty());
    let three = Terms {
        ports: Some(3),
        ..Terms::default()
    };
    let (text, missing) = message(judge(&three).expect_err("too few"));
    assert!(
        text.contains("x.yaml:6:") && text.contains("1 data interfaces are named here, but 3 were asked for"),
        "{text}"
    );
    assert!(missing.is_empty(), "not to be waited for");
    for terms in [
        Terms {
            management: ManagementInterface::Named("lo".to_owned()),
            ..Terms::default()
        },
        Terms {
            listening_on: Some("lo".to_owned()),
            ..Terms::default()
        },
    ] {
        let judged = judge(&terms).expect("sound").check_interfaces(&terms);
        let (text, missing) = message(judged.expect_err("it is for management"));
        assert!(
            text.contains("\"lo\" is for management and cannot be a data interface"),
            "{text}"
        );
        assert!(missing.is_empty());
    }
}

/// The table of the documentation.
fn documented() -> String {
    use std::fmt::Write as _;
    let mut text = String::from("| command line | environment | alias | default |\n|---|---|---|---|\n");
    for setting in SETTINGS {
        let alias = setting
            .alias
            .map_or_else(String::new, |alias| format!("`{}`", alias.variable));
        let default = match setting.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            text,
            "| `--{}` | `{}` | {alias} | {default} |",
            setting.name, setting.variable
        );
    }
    text
}

#[test]
fn the_documentation_lists_every_setting_and_every_name_without_a_meaning() {
    let page = include_str!("../../../../deploy/docs/launch.md");
    assert!(
        page.contains(&documented()),
        "put this into deploy/docs/launch.md:\n{}",
        documented()
    );
    let mut meaningless: Vec<&str> = MEANINGLESS.iter().map(|(name, _)| *name).collect();
    meaningless.sort_unstable();
    assert_eq!(meaningless, WITHOUT_A_MEANING, "each with its reason");
    for name in WITHOUT_A_MEANING {
        assert!(
            page.contains(&format!("`{name}`")),
            "{name} is not in deploy/docs/launch.md"
        );
    }
}

/// Every variable of cSRX, with a value of its, is an alias of a setting or named in a warning with its reason.
#[test]
fn every_variable_of_csrx_is_taken_or_explained() {
    for (name, value) in TAKEN {
        let launch = launch(&[], &[(name, value)]).unwrap_or_else(|error| panic!("{name}: {error}"));
        let taken = |chosen: &Chosen| chosen.origin == Origin::Alias((*name).to_owned());
        assert!(launch.chosen.iter().any(taken), "{name} is not taken");
        assert!(launch.warnings.is_empty(), "{name}: {:?}", launch.warnings);
    }
    let aliases = SETTINGS.iter().filter_map(|setting| setting.alias);
    let aliases: Vec<&str> = aliases.map(|alias| alias.variable).collect();
    assert_eq!(aliases.len(), TAKEN.len(), "{aliases:?}");
    for name in WITHOUT_A_MEANING {
        let launch = launch(&[], &[(name, "x")]).unwrap_or_else(|error| panic!("{name}: {error}"));
        let [warning] = &launch.warnings[..] else {
            panic!("{name}: {:?}", launch.warnings)
        };
        let reason = warning.strip_prefix(&format!("{name} means nothing here: "));
        let reason = reason.unwrap_or_else(|| panic!("{warning}"));
        assert!(reason != "nobody knows that variable", "{name} has no reason");
    }
}
