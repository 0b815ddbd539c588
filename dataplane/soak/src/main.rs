//! `bulkhead-soak`: runs the soak and prints what it found. Status 1 if anything was not as it should be.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use bulkhead_soak::{Options, run};
use clap::Parser;

/// Random traffic, random commits and floods through a firewall between five hosts; afterwards every frame must be
/// accounted for, every session gone, memory where it began.
#[derive(Debug, Parser)]
#[command(name = "bulkhead-soak", bin_name = "cargo xtask soak", version)]
struct Arguments {
    /// How long to go on
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
    /// Seconds instead of minutes
    #[arg(long, conflicts_with = "minutes", value_parser = clap::value_parser!(u64).range(5..=86_400))]
    seconds: Option<u64>,
    /// Repeat the draws of an earlier run [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Also write the report as JSON; "-" writes it to standard output instead of the report for people
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match soak(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn soak(arguments: &Arguments) -> Result<bool> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let options = Options {
        duration: Duration::from_secs(arguments.seconds.unwrap_or(arguments.minutes * 60)),
        seed: arguments.seed.unwrap_or(clock.as_secs()),
    };
    let report = run(&options, &mut |what| eprintln!("soak: {what}"))?;
    let json = serde_json::to_string_pretty(&report).context("cannot write the report as JSON")?;
    match &arguments.json {
        Some(path) if path.as_os_str() == "-" => println!("{json}"),
        Some(path) => {
            fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
            println!("{report}");
        }
        None => println!("{report}"),
    }
    Ok(report.passed())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
        let arguments = Arguments::parse_from(["bulkhead-soak", "--minutes", "3"]);
        assert_eq!((arguments.minutes, arguments.seconds), (3, None));
    }
}
