//! `cargo xtask vm-test`: the privileged tests on other kernels, each in a machine of its own.
//!
//! Owns which kernels, which tests and how long. Debian's cloud kernels boot under qemu with an initial file system that
//! holds the test binaries built here; nothing on this machine changes, and no root is needed. Refuses to skip: a missing
//! qemu or kernel is an error with the command that mends it.
//!
//! Emulated (`tcg`), a machine is some twenty times slower than this one, takes one of its processors and runs everywhere; with
//! `--accel kvm` it is as fast, where `/dev/kvm` works. The machines of several kernels run at once.

mod cpio;
mod image;
mod machine;
mod modules;
mod packages;
mod plan;

use std::{
    fs,
    panic::resume_unwind,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use self::{image::Contents, machine::Boot};
use crate::{
    apiserver::KUBE_NAMES,
    metadata::Metadata,
    process::Workspace,
    report::{self, TierReport},
    setup::{self, Want},
    skips, test,
};

/// What `--quick` runs: that the object loads, what it costs the verifier, and that traffic passes, and is stopped, through real
/// interfaces. Emulated, a minute or two of processor time.
const QUICK: &[&str] = &[
    "prog_run_verified",
    "netns_clsact_",
    "netns_conversations_over_tcx",
    "netns_detached_programs_forward_nothing",
    "netns_a_commit_ends_live_sessions",
    "netns_taken_off_clsact",
];

/// An emulated processor whose clock counts instructions, one each nanosecond, and jumps to the next timer where there are none.
/// Whatever else runs beside it, a machine sees itself as equally fast, and to wait costs it nothing: the same tests pass.
const TCG: &[&str] = &["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"];

/// How many times slower than a real machine an emulated one is taken to be: tests do so many times less and are so many times
/// more patient, by the testkit's `effort`. Rather less than it is, for most of what tests wait for is short.
const TCG_SLOWNESS: u32 = 4;

/// When a test is ended, by the machine's clock.
const TEST_LIMIT: Duration = Duration::from_secs(400);

/// When a machine is given up unless told otherwise: all tests emulated are hours of work.
const TIMEOUT_MINUTES: u64 = 240;

/// Where the tests of `--quick` are.
const QUICK_PACKAGE: &str = "bulkhead-dataplane";

/// The command line of `cargo xtask vm-test`.
#[derive(Args)]
pub struct Options {
    /// Which kernel; may be repeated
    #[arg(long, value_enum, default_values_t = Series::ALL)]
    kernel: Vec<Series>,
    /// A selection for every push, a few minutes per kernel
    #[arg(long, conflicts_with = "filters")]
    quick: bool,
    /// The packages whose tests to build; all by default
    #[arg(long)]
    package: Vec<String>,
    /// The integration tests (files below `tests`) to build; all by default
    #[arg(long)]
    test: Vec<String>,
    /// Tests whose names contain this do not run; may be repeated
    #[arg(long)]
    skip: Vec<String>,
    /// How the machine's processor is made
    #[arg(long, value_enum, default_value_t = Accel::Tcg)]
    accel: Accel,
    /// When a machine is given up, by this machine's clock
    #[arg(long, default_value_t = TIMEOUT_MINUTES)]
    timeout_minutes: u64,
    /// Only tests whose names contain one of these; by default the privileged ones
    filters: Vec<String>,
}

/// A kernel series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Series {
    /// Debian 12's: no TCX
    #[value(name = "6.1")]
    Six1,
    /// Debian 13's, and in Debian 12's backports
    #[value(name = "6.12")]
    Six12,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Accel {
    /// Emulated: runs everywhere
    Tcg,
    /// Needs a working /dev/kvm
    Kvm,
}

impl Series {
    /// All series.
    pub const ALL: [Self; 2] = [Self::Six1, Self::Six12];

    fn name(self) -> &'static str {
        match self {
            Self::Six1 => "6.1",
            Self::Six12 => "6.12",
        }
    }

    fn tier(self) -> &'static str {
        match self {
            Self::Six1 => "vm-6.1",
            Self::Six12 => "vm-6.12",
        }
    }
}

impl Options {
    /// Everything, on all kernels.
    pub fn everything() -> Self {
        Self {
            kernel: Series::ALL.to_vec(),
            quick: false,
            package: Vec::new(),
            test: Vec::new(),
            skip: Vec::new(),
            accel: Accel::Tcg,
            timeout_minutes: TIMEOUT_MINUTES,
            filters: Vec::new(),
        }
    }
}

/// Runs, and prints the table.
pub fn run(ws: &Workspace, options: &Options) -> Result<ExitCode> {
    let reports = tiers(ws, options)?;
    println!("{}", report::render(&reports));
    Ok(report::verdict(&reports))
}

/// One report per kernel.
pub fn tiers(ws: &Workspace, options: &Options) -> Result<Vec<TierReport>> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the kernels of `vm-test` are for x86_64, and their tests are built here");
    }
    setup::ensure(
        ws,
        Want {
            network: true,
            vm: true,
            ..Want::default()
        },
    )?;
    let words = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let filters = if options.quick {
        words(QUICK)
    } else if options.filters.is_empty() {
        words(&test::PRIVILEGED_NAMES)
    } else {
        options.filters.clone()
    };
    let packages = if options.quick && options.package.is_empty() {
        words(&[QUICK_PACKAGE])
    } else {
        options.package.clone()
    };
    let mut skip = options.skip.clone();
    if options.filters.is_empty() {
        // There is no API server in the machine.
        skip.extend(words(&KUBE_NAMES));
    }
    let plan = plan::build(ws, &packages, &options.test, &filters, &skip)?;
    if plan.binaries.is_empty() {
        bail!("no test has a name with {}", filters.join(" or "));
    }
    // One after the other: both may have a package to fetch.
    let prepared: Vec<_> = Series::ALL
        .into_iter()
        .filter(|series| options.kernel.contains(series))
        .map(|series| (series, Prepared::new(ws, series, &plan)))
        .collect();
    // At once: an emulated machine takes one processor, and what else runs beside it fails no test.
    Ok(thread::scope(|scope| {
        let running: Vec<_> = prepared
            .into_iter()
            .map(|(series, prepared)| {
                let plan = &plan;
                scope.spawn(move || {
                    let began = Instant::now();
                    // A kernel that cannot run does not keep the others from running.
                    let mut report = prepared
                        .and_then(|prepared| boot(options, series, &prepared, plan))
                        .unwrap_or_else(|error| TierReport {
                            problems: vec![format!("{error:#}")],
                            ..TierReport::new(series.tier())
                        });
                    report.took = began.elapsed();
                    report
                })
            })
            .collect();
        running
            .into_iter()
            .map(|machine| machine.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    }))
}

/// What a machine boots, on the disk.
struct Prepared {
    kernel: packages::Kernel,
    initrd: PathBuf,
    console: PathBuf,
    log: PathBuf,
}

impl Prepared {
    fn new(ws: &Workspace, series: Series, plan: &plan::Plan) -> Result<Self> {
        let kernel = packages::kernel(series.name())?;
        let busybox = packages::busybox()?;
        let directory = Metadata::load(ws)?
            .target_directory
            .join("vm")
            .join(series.name());
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let [initrd, console, log] = ["initrd", "console", "log"].map(|name| directory.join(name));
        image::write(
            &initrd,
            &Contents {
                busybox: &busybox,
                modules: &modules::closure(&kernel.modules)?,
                plan,
            },
        )?;
        Ok(Self {
            kernel,
            initrd,
            console,
            log,
        })
    }
}

fn boot(options: &Options, series: Series, prepared: &Prepared, plan: &plan::Plan) -> Result<TierReport> {
    let Prepared {
        kernel,
        initrd,
        console,
        log,
    } = prepared;
    let initrd_mib = fs::metadata(initrd)?.len() >> 20;
    println!(
        "{}: Linux {}, {} tests, {initrd_mib} MiB",
        series.tier(),
        kernel.release,
        plan.tests().count()
    );
    let outcome = machine::run(
        &Boot {
            name: series.tier(),
            kernel: &kernel.image,
            initrd,
            console,
            log,
            accel: match options.accel {
                Accel::Tcg => TCG,
                Accel::Kvm => &["-accel", "kvm"],
            },
            slowness: match options.accel {
                Accel::Tcg => TCG_SLOWNESS,
                Accel::Kvm => 1,
            },
            test_limit: TEST_LIMIT,
            // While it boots, the file system is there twice.
            memory_mib: 3072 + 2 * initrd_mib,
            timeout: Duration::from_secs(options.timeout_minutes * 60),
        },
        plan,
    )?;
    let success = outcome.problems.is_empty() && outcome.summary.counts.failed == 0;
    // Of a machine that died it is not known what did not skip.
    let whole = outcome.problems.is_empty();
    let planned = plan.tests().map(|(_, test)| test).filter(|_| whole);
    let skips = skips::of_a_machine(series, planned, &outcome.summary);
    let mut report = test::tier_report(series.tier(), &outcome.summary, true);
    report.problems.extend(outcome.problems);
    report.problems.extend(skips);
    if success {
        // It is large, and only of use to look into what went wrong.
        fs::remove_file(initrd).with_context(|| format!("cannot remove {}", initrd.display()))?;
    }
    Ok(report)
}
