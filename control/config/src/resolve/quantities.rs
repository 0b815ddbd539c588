//! Numbers and durations within bounds.
//!
//! What is not written has its default; what is out of bounds is refused, and the default stands in for it.

use std::time::Duration;

use super::Checker;
use crate::address::Refusal;
use crate::node::Segment;
use crate::one_or_many::NumberOrText;
use crate::toggle::Toggle;

/// The shortest and the longest duration of a kind.
#[derive(Clone, Copy)]
pub(super) struct Durations {
    least: Duration,
    most: Duration,
    /// It is a whole number of these.
    step: Duration,
    /// All of it, for people.
    text: &'static str,
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// How long a session may be idle.
pub(super) const TIMEOUTS: Durations = Durations {
    least: SECOND,
    most: Duration::from_secs(7 * 86_400),
    step: MILLISECOND,
    text: "1s to 7d",
};

/// How long a session of a service may be idle: each of its flows carries it, in seconds.
pub(super) const SERVICE_TIMEOUTS: Durations = Durations {
    step: SECOND,
    text: "1s to 7d, in whole seconds",
    ..TIMEOUTS
};

/// How long a host keeps its translated address and port.
pub(super) const PERSISTENT_TIMEOUTS: Durations = Durations {
    least: Duration::from_secs(60),
    most: Duration::from_secs(7_200),
    step: SECOND,
    text: "60s to 7200s, in whole seconds",
};

/// Within which time something counts as a scan.
pub(super) const SCAN_INTERVALS: Durations = Durations {
    least: MILLISECOND,
    most: SECOND,
    step: MILLISECOND,
    text: "1ms to 1s",
};

/// How often a list is fetched.
pub(super) const FEED_INTERVALS: Durations = TIMEOUTS;

/// How long what left a list is kept.
pub(super) const FEED_HOLDS: Durations = Durations {
    least: SECOND,
    most: Duration::from_secs(365 * 86_400),
    step: SECOND,
    text: "1s to 365d, in whole seconds",
};

impl Checker<'_, '_> {
    /// `default` if nothing is written.
    pub(super) fn number(
        &mut self,
        path: &[Segment],
        written: Option<u32>,
        default: u32,
        (least, most): (u32, u32),
    ) -> u32 {
        let number = written.unwrap_or(default);
        if (least..=most).contains(&number) {
            return number;
        }
        let refusal = (
            format!("{} cannot be {number}", field(path)),
            Some(format!("it can be {least} to {most}")),
        );
        self.error(path, refusal);
        default
    }

    /// `None` if it is off, `default` for `true`.
    pub(super) fn threshold(
        &mut self,
        path: &[Segment],
        written: Option<&Toggle<u32>>,
        default: u32,
        bounds: (u32, u32),
    ) -> Option<u32> {
        match *written? {
            Toggle::Switch(on) => on.then_some(default),
            Toggle::Set(number) => Some(self.number(path, Some(number), default, bounds)),
        }
    }

    /// From 1 to 100.
    pub(super) fn per_cent(&mut self, path: &[Segment], written: Option<u32>, default: u8) -> u8 {
        let number = self.number(path, written, default.into(), (1, 100));
        u8::try_from(number).unwrap_or(default)
    }

    /// `default` if nothing is written.
    pub(super) fn duration(
        &mut self,
        path: &[Segment],
        written: Option<&NumberOrText>,
        default: Duration,
        bounds: Durations,
    ) -> Duration {
        let Some(written) = written else { return default };
        let parsed = parse_duration(&written.0).and_then(|duration| {
            let whole = duration.as_millis() % bounds.step.as_millis() == 0;
            if whole && (bounds.least..=bounds.most).contains(&duration) {
                return Ok(duration);
            }
            let message = format!("{} cannot be {}", field(path), written.0);
            Err((message, Some(format!("it can be {}", bounds.text))))
        });
        parsed.unwrap_or_else(|refusal| {
            self.error(path, refusal);
            default
        })
    }
}

/// The last name on the way.
fn field(path: &[Segment]) -> &str {
    let keys = path.iter().rev();
    keys.filter_map(|segment| match segment {
        Segment::Key(key) => Some(&**key),
        Segment::Index(_) => None,
    })
    .next()
    .unwrap_or("the value")
}

fn parse_duration(text: &str) -> Result<Duration, Refusal> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if !number.is_empty() => {
            return Err((
                format!("duration {text} has no unit"),
                Some(format!("write {text}s for seconds")),
            ));
        }
        _ => 0,
    };
    let Some(number) = number.parse::<u64>().ok().filter(|_| milliseconds > 0) else {
        let help = "write a number and a unit: 90s, 5m, 2h".to_owned();
        return Err((format!("\"{text}\" is not a duration"), Some(help)));
    };
    Ok(Duration::from_millis(number.saturating_mul(milliseconds)))
}
