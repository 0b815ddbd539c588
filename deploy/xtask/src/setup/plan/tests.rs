//! The plan on machines that do not exist.

use super::*;

fn bare_debian() -> Facts {
    Facts {
        debian: Some("12".to_owned()),
        root: true,
        compiler: Err("/usr/bin/rustc is missing".to_owned()),
        bpf_linker: false,
        cargo_fuzz: false,
        linker_packages_missing: LINKER_PACKAGES.to_vec(),
        tools_missing: all_tools().collect(),
        apiserver: false,
    }
}

fn complete() -> Facts {
    Facts {
        compiler: Ok("Debian packages".to_owned()),
        bpf_linker: true,
        cargo_fuzz: true,
        linker_packages_missing: Vec::new(),
        tools_missing: Vec::new(),
        apiserver: true,
        ..bare_debian()
    }
}

const ALL: Want = Want {
    network: true,
    attack: true,
    fuzz: true,
    vm: true,
    kube: true,
    docker: true,
};

#[test]
fn a_bare_debian_gets_everything() {
    let facts = bare_debian();
    let items = plan(
        &facts,
        Want {
            network: true,
            attack: true,
            docker: true,
            ..Want::default()
        },
    );
    assert_eq!(
        packages(&items),
        [
            "rustc-web",
            "libstd-rust-web-dev-bpf",
            "llvm-22-dev",
            "libpolly-22-dev",
            "libzstd-dev",
            "iproute2",
            "nftables",
            "iptables",
            "ipset",
            "iputils-ping",
            "python3-prometheus-client",
            "ethtool",
            "iperf3",
            "procps",
            "hping3",
            "nmap",
            "python3-scapy",
            "docker.io",
            "docker-compose"
        ]
    );
    assert_eq!(
        cargo_tools(&items),
        [CargoTool::BpfLinker],
        "cargo-fuzz only when asked for"
    );
    assert_eq!(by_hand(&facts, &items), None);
}

#[test]
fn a_complete_machine_gets_nothing_whoever_asks() {
    for (root, debian) in [(true, None), (false, Some("12".to_owned())), (false, None)] {
        let facts = Facts {
            root,
            debian,
            ..complete()
        };
        let items = plan(&facts, ALL);
        assert!(items.iter().all(|item| item.remedies.is_empty()), "{items:?}");
        assert_eq!(by_hand(&facts, &items), None);
    }
}

#[test]
fn nightly_with_rust_src_needs_no_debian_compiler_but_still_a_linker() {
    let facts = Facts {
        compiler: Ok("nightly with rust-src".to_owned()),
        ..bare_debian()
    };
    let items = plan(&facts, Want::default());
    assert_eq!(packages(&items), LINKER_PACKAGES);
    assert_eq!(cargo_tools(&items), [CargoTool::BpfLinker]);
}

#[test]
fn an_installed_linker_needs_no_llvm_headers() {
    let facts = Facts {
        bpf_linker: true,
        ..bare_debian()
    };
    assert_eq!(packages(&plan(&facts, Want::default())), COMPILER_PACKAGES);
}

#[test]
fn tools_are_wanted_only_for_what_they_are_for() {
    let facts = Facts {
        tools_missing: bare_debian().tools_missing,
        ..complete()
    };
    assert_eq!(packages(&plan(&facts, Want::default())), [""; 0]);
    let network = Want {
        network: true,
        ..Want::default()
    };
    assert_eq!(packages(&plan(&facts, network)).len(), NETWORK_TOOLS.len());
    let attack = Want {
        attack: true,
        ..Want::default()
    };
    assert_eq!(
        packages(&plan(&facts, attack)),
        ["hping3", "nmap", "python3-scapy"]
    );
    assert_eq!(
        packages(&plan(&facts, ALL)).len(),
        NETWORK_TOOLS.len() + ATTACK_TOOLS.len() + VM_TOOLS.len() + KUBE_TOOLS.len() + 2,
        "two packages bring Docker's three programs"
    );
}

#[test]
fn a_plain_user_on_debian_is_told_the_exact_commands() {
    let facts = Facts {
        root: false,
        ..bare_debian()
    };
    let lines = by_hand(&facts, &plan(&facts, Want::default())).expect("not root");
    assert_eq!(
        lines,
        [
            "sudo apt-get update",
            "sudo apt-get install --no-install-recommends rustc-web libstd-rust-web-dev-bpf llvm-22-dev \
             libpolly-22-dev libzstd-dev",
            "LLVM_PREFIX=$(llvm-config-22 --prefix) cargo install bpf-linker --version 0.13.0 --locked \
             --no-default-features --features llvm-22",
        ]
    );
}

#[test]
fn a_plain_user_may_run_cargo_install_when_no_package_is_missing() {
    let facts = Facts {
        root: false,
        cargo_fuzz: false,
        ..complete()
    };
    let items = plan(&facts, ALL);
    assert_eq!(cargo_tools(&items), [CargoTool::CargoFuzz]);
    assert_eq!(by_hand(&facts, &items), None);
}

#[test]
fn elsewhere_nothing_is_installed_and_nightly_is_advised() {
    let facts = Facts {
        debian: None,
        ..bare_debian()
    };
    let lines = by_hand(&facts, &plan(&facts, ALL)).expect("not Debian");
    assert_eq!(lines[0], "rustup toolchain install nightly --component rust-src");
    assert!(
        lines.iter().any(|l| l.contains("cargo install cargo-fuzz")),
        "{lines:?}"
    );
    for command in ["`nft`", "`hping3`"] {
        assert!(lines.iter().any(|l| l.contains(command)), "{lines:?}");
    }
    assert!(!lines.iter().any(|l| l.contains("apt-get")), "{lines:?}");
}

#[test]
fn the_api_server_is_built_where_it_is_wanted_and_missing() {
    let missing = Facts {
        apiserver: false,
        ..complete()
    };
    let kube = Want {
        kube: true,
        ..Want::default()
    };
    assert!(apiserver(&plan(&missing, kube)));
    assert!(!apiserver(&plan(&missing, Want::default())), "not wanted");
    assert!(!apiserver(&plan(&complete(), ALL)), "there already");
    assert_eq!(packages(&plan(&bare_debian(), kube)).last(), Some(&"python3-pip"));

    let user = Facts {
        root: false,
        ..missing.clone()
    };
    assert_eq!(
        by_hand(&user, &plan(&user, kube)),
        None,
        "needs no package and no root"
    );
    let elsewhere = Facts {
        debian: None,
        ..missing
    };
    let lines = by_hand(&elsewhere, &plan(&elsewhere, kube)).expect("no Debian");
    assert!(
        lines.last().is_some_and(|line| line.contains("on Debian 12")),
        "{lines:?}"
    );
}
