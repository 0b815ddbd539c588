//! Which tests may skip themselves, and where: a test that does not run shows nothing, so that it does not is pinned.
//!
//! Owns the list. On the kernels of `vm-test`, whose machines are always the same, exactly the tests that are listed skip
//! themselves: any other skip is a problem, and so is one of the list that is gone. On the host it depends on its kernel and
//! its tools; there only what is listed for any place may skip, and in continuous integration not for want of a tool, for `setup`
//! brings those. Refuses a listed test that says another reason.

use crate::{libtest::Summary, vm::Series};

/// A test that may skip itself.
struct Skip {
    /// Its name, without its module's.
    test: &'static str,
    /// What the reason it says begins with.
    because: &'static str,
    /// The kernels on which it does.
    on: &'static [Series],
}

const XDP_FEATURES: &str = "needs a kernel that tells XDP features";
const NO_TCX: &str = "this kernel has no TCX, whose links a program is replaced in";

/// Those of the list that skip where a program is missing.
const FOR_WANT_OF_TOOLS: [&str; 2] = [
    "netns_taken_off_by_bpftool_is_put_back_without_pins",
    "netns_agent_metrics_are_openmetrics_and_as_documented",
];

const SKIPS: &[Skip] = &[
    Skip {
        test: "prog_run_the_sum_is_what_the_kernel_allocates",
        because: "needs a kernel that tells what maps allocate",
        on: &[Series::Six1],
    },
    Skip {
        test: "netns_a_peer_in_another_namespace_shows_in_the_features",
        because: XDP_FEATURES,
        on: &[Series::Six1],
    },
    Skip {
        test: "netns_a_veth_has_xdp_only_with_queues_for_its_peer",
        because: XDP_FEATURES,
        on: &[Series::Six1],
    },
    Skip {
        test: "netns_a_veth_receives_redirects_while_its_peer_has_gro_or_xdp",
        because: XDP_FEATURES,
        on: &[Series::Six1],
    },
    Skip {
        test: "netns_an_absent_interface_and_one_without_xdp_say_so",
        because: XDP_FEATURES,
        on: &[Series::Six1],
    },
    Skip {
        test: "netns_taken_off_replaced_programs_are_noticed_and_put_back",
        because: NO_TCX,
        on: &[Series::Six1],
    },
    Skip {
        test: "netns_taken_off_replaced_programs_are_not_ready",
        because: NO_TCX,
        on: &[Series::Six1],
    },
    Skip {
        test: "netns_agent_is_not_ready_while_a_program_is_off",
        because: "needs TCX links",
        on: &[Series::Six1],
    },
    Skip {
        test: "netns_taken_off_clsact_is_put_back",
        because: "this kernel has TCX",
        on: &[Series::Six12],
    },
    // The machines have neither bpftool nor Python.
    Skip {
        test: "netns_taken_off_by_bpftool_is_put_back_without_pins",
        because: "needs TCX and bpftool",
        on: &Series::ALL,
    },
    Skip {
        test: "netns_agent_metrics_are_openmetrics_and_as_documented",
        because: "what is told could not be parsed",
        on: &Series::ALL,
    },
    Skip {
        test: "netns_the_benchmark_measures_judges_and_writes_its_report",
        because: "the benchmark needs TCX, and a processor that is not emulated",
        on: &Series::ALL,
    },
    // Some machines' own kernels; Debian's have the module.
    Skip {
        test: "netns_clsact_filters_of_others_beside_ours_stay_as_they_are",
        because: "this kernel has no classifier but bpf",
        on: &[],
    },
];

/// A test's name without its module's.
fn short(test: &str) -> &str {
    test.rsplit("::").next().unwrap_or(test)
}

/// What is wrong with the skips of a machine's run of the tests `planned`.
pub fn of_a_machine<'a>(
    series: Series,
    planned: impl Iterator<Item = &'a str>,
    summary: &Summary,
) -> Vec<String> {
    let mut problems = unexpected(summary, |skip| skip.on.contains(&series));
    for test in planned {
        let expected = SKIPS
            .iter()
            .any(|skip| skip.test == short(test) && skip.on.contains(&series));
        // A failure's name may have its reason behind it.
        let told = |lines: &[String]| lines.iter().any(|line| names(line, test));
        if expected && !told(&summary.skips) && !told(&summary.failures) {
            problems.push(format!(
                "{test} ran, and is listed in deploy/xtask/src/skips.rs as one that skips itself here: if that is as it is to \
                 be, strike it there and in deploy/docs/kernels.md"
            ));
        }
    }
    problems
}

/// What is wrong with the skips of a run on this machine. `ci`: in continuous integration.
pub fn of_the_host(summary: &Summary, ci: bool) -> Vec<String> {
    unexpected(summary, |skip| !ci || !FOR_WANT_OF_TOOLS.contains(&skip.test))
}

/// Whether a line of a summary is about a test: its name, perhaps with a colon and more.
fn names(line: &str, test: &str) -> bool {
    line.strip_prefix(test)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(": "))
}

fn unexpected(summary: &Summary, here: impl Fn(&Skip) -> bool) -> Vec<String> {
    let listed = |line: &str| {
        // Modules are joined by colons without a space.
        let (test, why) = line.split_once(": ").unwrap_or((line, ""));
        let mut found = SKIPS.iter().filter(|skip| here(skip) && skip.test == short(test));
        found.any(|skip| why.starts_with(skip.because))
    };
    let unlisted = summary.skips.iter().filter(|line| !listed(line));
    let say = |line: &String| {
        format!("not listed in deploy/xtask/src/skips.rs as one that may skip itself here, and did: {line}")
    };
    unlisted.map(say).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BPFTOOL: &str = "taken_off::netns_taken_off_by_bpftool_is_put_back_without_pins";
    const CLSACT: &str = "netns_taken_off_clsact_is_put_back";

    fn summary(skips: &[String]) -> Summary {
        Summary {
            skips: skips.to_vec(),
            ..Summary::default()
        }
    }

    #[test]
    fn a_machine_skips_what_is_listed_and_nothing_else() {
        let bpftool = format!("{BPFTOOL}: needs TCX and bpftool");
        let clsact = format!("{CLSACT}: this kernel has TCX, filters are not used");
        let check = |series, skips: &[String]| {
            of_a_machine(
                series,
                [BPFTOOL, CLSACT, "netns_other"].into_iter(),
                &summary(skips),
            )
        };
        assert_eq!(check(Series::Six12, &[bpftool.clone(), clsact.clone()]), [""; 0]);
        assert_eq!(check(Series::Six1, std::slice::from_ref(&bpftool)), [""; 0]);
        // Elsewhere, for another reason, of another test, ignored.
        for (series, skips, part) in [
            (Series::Six1, vec![bpftool.clone(), clsact.clone()], CLSACT),
            (
                Series::Six1,
                vec![format!("{BPFTOOL}: no idea"), bpftool.clone()],
                "no idea",
            ),
            (
                Series::Six1,
                vec![bpftool.clone(), "netns_other: tired".into()],
                "netns_other",
            ),
            (
                Series::Six1,
                vec![bpftool.clone(), "netns_other: ignored, slow".into()],
                "ignored",
            ),
            // One that ran.
            (Series::Six12, vec![bpftool], "ran, and is listed"),
            (Series::Six1, vec![], BPFTOOL),
        ] {
            let problems = check(series, &skips);
            assert!(problems.len() == 1 && problems[0].contains(part), "{problems:?}");
        }
    }

    #[test]
    fn a_listed_test_that_failed_or_was_not_chosen_is_not_missed() {
        let failed = Summary {
            failures: vec![format!("{BPFTOOL}: not done after 400 s and ended")],
            ..Summary::default()
        };
        assert_eq!(
            of_a_machine(Series::Six1, [BPFTOOL].into_iter(), &failed),
            [""; 0]
        );
        assert_eq!(
            of_a_machine(Series::Six1, ["netns_other"].into_iter(), &Summary::default()),
            [""; 0]
        );
    }

    #[test]
    fn the_host_may_skip_what_is_listed_for_any_place() {
        let listed = [
            format!("{CLSACT}: this kernel has TCX, filters are not used"),
            "netns_clsact_filters_of_others_beside_ours_stay_as_they_are: this kernel has no classifier but bpf".into(),
        ];
        for ci in [false, true] {
            assert_eq!(of_the_host(&summary(&listed), ci), [""; 0]);
            let other = ["a::netns_other: needs root".into()];
            assert_eq!(of_the_host(&summary(&other), ci).len(), 1);
            // A tool is missing, which setup brings.
            let tool = [format!("{BPFTOOL}: needs TCX and bpftool")];
            assert_eq!(of_the_host(&summary(&tool), ci).len(), usize::from(ci));
        }
    }

    /// Each is in the documentation's table, and each row of the table is one of them.
    #[test]
    fn the_list_is_that_of_the_documentation() {
        let text = include_str!("../../docs/kernels.md");
        let table = text.split("What skips itself there").nth(1).expect("a section");
        let rows: Vec<_> = table
            .lines()
            .skip_while(|line| !line.starts_with("|---"))
            .skip(1)
            .map_while(|line| line.strip_prefix("| "))
            .collect();
        let mut documented = 0;
        for row in rows {
            let cells: Vec<_> = row.split(" | ").collect();
            for test in cells[0].split('`').filter(|part| part.contains('_')) {
                let skip = SKIPS.iter().find(|skip| skip.test == test);
                let skip = skip.unwrap_or_else(|| panic!("{test} is not listed"));
                for (cell, series) in [(cells[1], Series::Six1), (cells[2], Series::Six12)] {
                    assert_eq!(cell == "skipped", skip.on.contains(&series), "{test}: {series:?}");
                }
                documented += 1;
            }
        }
        assert_eq!(
            documented,
            SKIPS.iter().filter(|skip| !skip.on.is_empty()).count()
        );
    }
}
