//! Twenty seconds of the soak, fewer on a slow machine, so that it cannot rot.

use std::time::Duration;

use anyhow::Result;
use bulkhead_soak::{Options, run};
use bulkhead_testkit::{effort, privileged};

#[test]
fn netns_soak_for_twenty_seconds() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let options = Options {
        duration: Duration::from_secs(effort(20)),
        seed: 4,
    };
    let report = run(&options, &mut |_| {})?;
    assert!(report.passed(), "{report}");
    println!("{report}");
    Ok(())
}
