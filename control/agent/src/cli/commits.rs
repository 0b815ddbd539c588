//! The words of `commit`, `confirm`, `rollback` and `diff`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::ShowArgs;
use crate::protocol::CommitOptions;
use crate::words;

/// The circumstances of a commit.
#[derive(Clone, Debug, Args)]
pub struct CommitOptionsArgs {
    /// Why, for `history`
    #[arg(
        long,
        short = 'm',
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub comment: String,
    /// Who, for `history`, where a program commits on behalf of somebody [default: the user]
    #[arg(long, value_name = "NAME")]
    pub author: Option<String>,
    /// Return to the revision before unless `bulkhead confirm` comes within this time, such as 5m; a restart of the
    /// daemon does not stop the clock
    #[arg(long, value_name = "TIME", value_parser = confirm_time)]
    pub confirm: Option<Duration>,
    /// Only if this revision is in force still
    #[arg(long, value_name = "REVISION")]
    pub onto: Option<u64>,
}

impl From<CommitOptionsArgs> for CommitOptions {
    fn from(args: CommitOptionsArgs) -> Self {
        Self {
            author: args.author,
            comment: args.comment,
            onto: args.onto,
            confirm_seconds: args.confirm.map(|time| time.as_secs()),
        }
    }
}

fn confirm_time(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(7 * 86_400);
    let time = words::parse_duration(text)?;
    match (Duration::from_secs(1)..=MOST).contains(&time) {
        true => Ok(time),
        false => Err("it can be 1s to 7d".to_owned()),
    }
}

/// Arguments of `commit`.
#[derive(Debug, Args)]
pub struct CommitArgs {
    /// The configuration
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub options: CommitOptionsArgs,
    #[command(flatten)]
    pub show: ShowArgs,
}

/// Arguments of `confirm`.
#[derive(Debug, Args)]
pub struct ConfirmArgs {
    /// Who, for `history` [default: the user]
    #[arg(long, value_name = "NAME")]
    pub author: Option<String>,
    #[command(flatten)]
    pub show: ShowArgs,
}

/// Arguments of `rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Number of the revision, as `history` shows it; not how many to go back [default: the one before that in force]
    #[arg(value_name = "REVISION")]
    pub revision: Option<u64>,
    #[command(flatten)]
    pub options: CommitOptionsArgs,
    #[command(flatten)]
    pub show: ShowArgs,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bulkhead diff                    what the last commit changed
  bulkhead diff firewall.yaml      what committing this file would change
  bulkhead diff 41                 what has changed since revision 41
  bulkhead diff 41 43              what changed from revision 41 to 43
  bulkhead diff old.yaml new.yaml  without a daemon")]
pub struct DiffArgs {
    /// A file, or the number of a revision; write ./41 for a file of that name
    #[arg(value_name = "FILE|REVISION")]
    pub first: Option<Side>,
    /// A file, or the number of a revision [default: the revision in force]
    #[arg(value_name = "FILE|REVISION")]
    pub second: Option<Side>,
    #[command(flatten)]
    pub show: ShowArgs,
}

/// One of two configurations to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// By its number.
    Revision(u64),
    /// By its path.
    File(PathBuf),
}

impl std::str::FromStr for Side {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text
            .parse()
            .map_or_else(|_| Self::File(text.into()), Self::Revision))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parsed(line: &str) -> Command {
        Cli::try_parse_from(line.split(' ')).expect("arguments").command
    }

    #[test]
    fn a_commit_has_its_circumstances() {
        let line = "bulkhead commit fw.yaml -m why --author anna --confirm 5m --onto 7";
        let Command::Commit(args) = parsed(line) else {
            panic!("not commit")
        };
        let expected = CommitOptions {
            author: Some("anna".into()),
            comment: "why".into(),
            onto: Some(7),
            confirm_seconds: Some(300),
        };
        assert_eq!(CommitOptions::from(args.options), expected);
        let Command::Rollback(args) = parsed("bulkhead rollback") else {
            panic!("not rollback")
        };
        assert_eq!(
            (args.revision, CommitOptions::from(args.options)),
            (None, CommitOptions::default())
        );
    }

    #[test]
    fn a_number_is_a_revision_and_anything_else_a_file() {
        let Command::Diff(args) = parsed("bulkhead diff 41 ./41") else {
            panic!("not diff")
        };
        assert_eq!(
            (args.first, args.second),
            (Some(Side::Revision(41)), Some(Side::File("./41".into())))
        );
    }

    #[test]
    fn there_is_a_second_to_confirm_and_a_week_at_most() {
        let seconds = |text| confirm_time(text).map(|time| time.as_secs());
        assert_eq!(seconds("1s"), Ok(1));
        assert_eq!(seconds("7d"), Ok(604_800));
        for wrong in ["0s", "8d", "5", "m", "-1s", "5 m", "99999999999999999999d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
