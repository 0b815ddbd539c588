//! Which sources an image is made of: a revision, and the moment that stands for every time in it.
//!
//! Owns both. In a checkout git says; without one (a Dockerfile's build stage) the environment does: `SOURCE_DATE_EPOCH`, as
//! reproducible-builds.org specifies it, and `BULKHEAD_REVISION`. Refuses to take the clock: then no two images were the same.

use std::{env, process::Command};

use anyhow::{Context as _, Result};

use crate::process::{self, Workspace};

/// What the image says of its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// The commit, `-dirty` appended where files were changed since; empty if nobody knows.
    pub revision: String,
    /// Seconds since 1970.
    pub epoch_seconds: u64,
}

impl Provenance {
    /// Asks the environment, then git.
    pub fn find(ws: &Workspace) -> Result<Self> {
        let epoch = match env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => Some(
                text.parse()
                    .with_context(|| format!("SOURCE_DATE_EPOCH={text}: expected seconds since 1970"))?,
            ),
            Err(_) => None,
        };
        let revision = env::var("BULKHEAD_REVISION").ok();
        let checkout = ws.root.join(".git").exists();
        let git = |arguments: &[&str]| -> Result<String> {
            let said = process::output(Command::new("git").current_dir(&ws.root).args(arguments))?;
            Ok(said.trim().to_owned())
        };
        let revision = match revision {
            Some(revision) => revision,
            None if checkout => {
                let changed = !git(&["status", "--porcelain"])?.is_empty();
                git(&["rev-parse", "HEAD"])? + if changed { "-dirty" } else { "" }
            }
            None => String::new(),
        };
        let epoch_seconds = match epoch {
            Some(epoch) => epoch,
            None if checkout => git(&["log", "-1", "--format=%ct"])?
                .parse()
                .context("git's commit time is no number")?,
            None => 0,
        };
        Ok(Self {
            revision,
            epoch_seconds,
        })
    }

    /// The moment as RFC 3339 has it, in UTC.
    pub fn created(&self) -> String {
        rfc3339(self.epoch_seconds)
    }
}

/// Civil time from days, by the algorithm of Howard Hinnant's `civil_from_days`.
fn rfc3339(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Counted from 0000-03-01, so that a leap day is the last day of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, next_year) = match month_from_march {
        0..=9 => (month_from_march + 3, 0),
        _ => (month_from_march - 9, 1),
    };
    let year = year_of_era + era * 400 + next_year;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_795_361_552, "2026-11-22T15:32:32Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
