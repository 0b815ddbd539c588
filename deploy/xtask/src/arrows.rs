//! The arrows between the crates: who may depend on whom.
//!
//! Owns the rules and the reason for each. Judges what the manifests ask for, dev-dependencies included where a rule
//! says *never*; they are left out where a rule lists everything that is allowed, since they reach no product.
//! Refuses a rule about a crate that does not exist and a crate below `ebpf/` that no rule covers: a check that
//! silently checks nothing is worse than none.

use std::{collections::BTreeSet, fmt, path::Path, process::ExitCode};

use anyhow::Result;

use crate::{
    metadata::{Kind, Metadata, Package},
    process::Workspace,
};

/// Everything that a crate may depend on.
struct Only {
    package: &'static str,
    /// Crates of this workspace.
    ours: &'static [&'static str],
    /// Crates from elsewhere; `None`: any.
    others: Option<&'static [&'static str]>,
    why: &'static str,
    instead: &'static str,
}

/// What crates below a directory may not depend on.
struct Never {
    /// A directory below the workspace root: one crate's, or one with crates below it.
    under: &'static str,
    what: &'static [Forbidden],
    why: &'static str,
    instead: &'static str,
}

enum Forbidden {
    /// A crate by name, also `name-*`.
    Family(&'static str),
    /// Crates of this workspace below a directory, reached directly or through other members.
    Under(&'static str),
}

const ONLY: &[Only] = &[
    Only {
        package: "bulkhead-abi",
        ours: &[],
        others: None,
        why: "what kernel and user space share stands alone, or a change elsewhere changes the ABI",
        instead: "move the shared type into ebpf/abi, or the code that needs the other crate out of it",
    },
    Only {
        package: "bulkhead-packet",
        ours: &["bulkhead-abi"],
        others: None,
        why: "header views and the parser need nothing but the one list of reasons, so that they can be fuzzed alone",
        instead: "put what needs more into ebpf/pipeline",
    },
    Only {
        package: "bulkhead-pipeline",
        ours: &["bulkhead-packet", "bulkhead-abi"],
        others: Some(&[]),
        why: "the pipeline is plain code, generic over packet, tables and clock, that runs in host tests",
        instead: "pass what is needed in through one of its traits and implement that in ebpf/programs",
    },
    Only {
        package: "bulkhead-programs",
        ours: &["bulkhead-pipeline", "bulkhead-packet", "bulkhead-abi"],
        others: Some(&["aya-ebpf", "zerocopy"]),
        why: "the BPF objects are a shell around the pipeline",
        instead: "put what decides into ebpf/pipeline",
    },
    Only {
        package: "bulkhead-revisions",
        ours: &[],
        others: None,
        why: "a committed document is bytes: what it means changes, what was kept must stay readable",
        instead: "judge documents in control/agent, which knows the store and the configuration",
    },
    Only {
        package: "bulkhead-ebpf-build",
        ours: &[],
        others: None,
        why: "build scripts compile it before anything else",
        instead: "pass what it needs to know in as an argument",
    },
];

const NEVER: &[Never] = &[
    Never {
        under: "control",
        what: &[
            Forbidden::Family("aya"),
            Forbidden::Family("aya-ebpf"),
            Forbidden::Under("ebpf/programs"),
        ],
        why: "the control plane drives the kernel only through dataplane",
        instead: "add what is needed to dataplane's interface",
    },
    Never {
        under: "control/config",
        what: &[
            Forbidden::Family("kube"),
            Forbidden::Family("k8s-openapi"),
            Forbidden::Under("dataplane"),
            Forbidden::Under("ebpf"),
        ],
        why: "the typed configuration is pure: it can be checked where there is no cluster and no kernel",
        instead: "convert in control/agent, which knows both sides",
    },
    Never {
        under: "control/kube",
        what: &[Forbidden::Under("dataplane"), Forbidden::Under("ebpf")],
        why: "what knows Kubernetes is tested against an API server, without a kernel that would have to enforce anything",
        instead: "ask for it through its trait `Agent`, which control/agent implements",
    },
    Never {
        under: "control/feeds",
        what: &[
            Forbidden::Family("kube"),
            Forbidden::Family("k8s-openapi"),
            Forbidden::Under("dataplane"),
            Forbidden::Under("ebpf"),
        ],
        why: "lists are read and fetched where there is no cluster and no kernel",
        instead: "convert in control/agent, which knows both sides",
    },
    Never {
        under: "dataplane",
        what: &[
            Forbidden::Under("control"),
            Forbidden::Family("kube"),
            Forbidden::Family("k8s-openapi"),
        ],
        why: "the data plane receives a plain ruleset and knows no configuration format",
        instead: "add what is needed to dataplane's ruleset and fill it in control/agent",
    },
    Never {
        under: "ebpf",
        what: &[Forbidden::Under("control"), Forbidden::Under("dataplane")],
        why: "arrows point from user space to the kernel side",
        instead: "move the shared type into ebpf/abi",
    },
];

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    manifest: String,
    what: String,
    why: &'static str,
    instead: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}\n  why: {}\n  instead: {}",
            self.manifest, self.what, self.why, self.instead
        )
    }
}

/// Checks this workspace and prints what is wrong.
pub fn run(ws: &Workspace) -> Result<ExitCode> {
    let metadata = Metadata::load(ws)?;
    let violations = check(&metadata);
    for violation in &violations {
        println!("arrows: {violation}");
    }
    if violations.is_empty() {
        println!(
            "arrows: {} crates, all arrows as designed",
            metadata.packages.len()
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!("arrows: {} violation(s)", violations.len());
    Ok(ExitCode::FAILURE)
}

fn check(metadata: &Metadata) -> Vec<Violation> {
    let mut violations = uncovered(metadata);
    for rule in ONLY {
        if let Some(package) = member(metadata, rule.package) {
            violations.extend(check_only(metadata, package, rule));
        }
    }
    for rule in NEVER {
        for package in metadata
            .packages
            .iter()
            .filter(|p| metadata.directory(p).starts_with(rule.under))
        {
            violations.extend(check_never(metadata, package, rule));
        }
    }
    violations
}

fn check_only(metadata: &Metadata, package: &Package, rule: &Only) -> Vec<Violation> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind != Kind::Dev)
        .filter(|dependency| {
            let name = dependency.name.as_str();
            let allowed = if member(metadata, name).is_some() {
                Some(rule.ours)
            } else {
                rule.others
            };
            allowed.is_some_and(|allowed| !allowed.contains(&name))
        })
        .map(|dependency| {
            let allowed = [rule.ours, rule.others.unwrap_or(&[])].concat();
            let allowed = if allowed.is_empty() {
                "nothing of ours".to_owned()
            } else {
                allowed.join(", ")
            };
            let what = format!(
                "{} may depend on {allowed}; not on {}",
                package.name, dependency.name
            );
            violation(metadata, package, what, rule.why, rule.instead)
        })
        .collect()
}

fn check_never(metadata: &Metadata, package: &Package, rule: &Never) -> Vec<Violation> {
    let mut violations = Vec::new();
    for forbidden in rule.what {
        let found = match forbidden {
            Forbidden::Family(family) => package
                .dependencies
                .iter()
                .map(|dependency| dependency.name.as_str())
                .find(|name| {
                    name.strip_prefix(family)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
                })
                .map(|name| format!("may not depend on {name}")),
            Forbidden::Under(dir) => way_into(metadata, package, Path::new(dir))
                .map(|way| format!("may not reach {dir}/, but does: {}", way.join(" -> "))),
        };
        if let Some(found) = found {
            let what = format!("{} {found}", package.name);
            violations.push(violation(metadata, package, what, rule.why, rule.instead));
        }
    }
    violations
}

/// A shortest way over members from `package` to a crate below `dir`, `package` first. Its own dev-dependencies
/// count, those of others do not: they are not compiled with it.
fn way_into<'a>(metadata: &'a Metadata, package: &'a Package, dir: &Path) -> Option<Vec<&'a str>> {
    let mut seen = BTreeSet::from([package.name.as_str()]);
    let mut ways = vec![(package, vec![package.name.as_str()])];
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for (last, way) in ways {
            for dependency in &last.dependencies {
                if dependency.kind == Kind::Dev && last.name != package.name {
                    continue;
                }
                let Some(next) = member(metadata, &dependency.name).filter(|next| seen.insert(&next.name))
                else {
                    continue;
                };
                let way = [way.as_slice(), &[next.name.as_str()]].concat();
                if metadata.directory(next).starts_with(dir) {
                    return Some(way);
                }
                longer.push((next, way));
            }
        }
        ways = longer;
    }
    None
}

/// Rules without a crate, and kernel-side crates without a rule.
fn uncovered(metadata: &Metadata) -> Vec<Violation> {
    const INSTEAD: &str = "bring the rules in deploy/xtask/src/arrows.rs in step with the tree";
    let gone = |what: String, why| Violation {
        manifest: "Cargo.toml".to_owned(),
        what,
        why,
        instead: INSTEAD,
    };
    let mut violations = Vec::new();
    for rule in ONLY
        .iter()
        .filter(|rule| member(metadata, rule.package).is_none())
    {
        violations.push(gone(
            format!("the rule about {} has no such crate", rule.package),
            rule.why,
        ));
    }
    for rule in NEVER {
        if !metadata
            .packages
            .iter()
            .any(|package| metadata.directory(package).starts_with(rule.under))
        {
            violations.push(gone(
                format!("the rule about {}/ has no crate there", rule.under),
                rule.why,
            ));
        }
    }
    for package in metadata
        .packages
        .iter()
        .filter(|p| metadata.directory(p).starts_with("ebpf"))
    {
        if !ONLY.iter().any(|rule| rule.package == package.name) {
            let what = format!("{} has no rule", package.name);
            violations.push(violation(
                metadata,
                package,
                what,
                "each crate of ebpf/ says what it may use",
                INSTEAD,
            ));
        }
    }
    violations
}

fn violation(
    metadata: &Metadata,
    package: &Package,
    what: String,
    why: &'static str,
    instead: &'static str,
) -> Violation {
    let manifest = metadata
        .directory(package)
        .join("Cargo.toml")
        .display()
        .to_string();
    Violation {
        manifest,
        what,
        why,
        instead,
    }
}

fn member<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a Package> {
    metadata.packages.iter().find(|package| package.name == name)
}

#[cfg(test)]
mod tests;
