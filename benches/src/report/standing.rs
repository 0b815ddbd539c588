//! How Bulkhead stands where a promise does not say it: against the best that the kernel's own firewalls can do, and
//! against programs that do less.
//!
//! Owns the words; the figures are the ratios that a run recorded, found by what they compare. What a run lacks is said
//! to be not measured. Nothing here knows which way a ratio came out.

use anyhow::Result;
use serde::Deserialize;

use crate::promises::{self, OWN_BEST, Quantity};

/// A ratio as a run recorded it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RecordedRatio {
    of: serde_json::Value,
    over: serde_json::Value,
    median: f64,
    min: f64,
    max: f64,
}

/// The paragraphs and the table.
pub fn text(ratios: &[RecordedRatio]) -> Result<String> {
    let mut text = String::from(
        "Linear rules are not the best that others can do. Where all rules are alike (one address, one port, permit), nftables holds \
         them in\none verdict map and a group in a set, iptables both in an `ipset`. Bulkhead on TCX over these:\n\n\
         | Bulkhead's figure over theirs | better is | nftables, verdict map or set | iptables with ipset |\n|---|---|---|---|\n",
    );
    for comparison in &OWN_BEST {
        text += &format!(
            "| {} | {} | {} | {} |\n",
            comparison.what,
            if comparison.is_time { "less" } else { "more" },
            cell(ratios, comparison.nftables)?,
            cell(ratios, comparison.iptables)?
        );
    }
    text += &format!(
        "\nThe two bare redirects look nothing up. Against a bare XDP program that asks the kernel's FIB, Bulkhead reaches\n{}. At a \
         million sessions, each in turn, a bare hash lookup alone costs {} what it costs at a\nthousand; Bulkhead then carries {} as \
         many packets as nftables by XDP, {} by TCX.\n",
        cell(ratios, promises::XDP_OVER_FIB)?,
        cell(ratios, promises::LOOKUP_OF_A_MILLION)?,
        cell(ratios, promises::XDP_AT_A_MILLION)?,
        cell(ratios, promises::TCX_AT_A_MILLION)?,
    );
    Ok(text)
}

fn cell(ratios: &[RecordedRatio], quantity: Quantity) -> Result<String> {
    let (of, over) = match quantity {
        Quantity::Ratio(of, over) | Quantity::Cost(of, over, _) => (of, over),
        Quantity::Value(point) | Quantity::Most(point) => (point, point),
    };
    let (of, over) = (serde_json::to_value(of)?, serde_json::to_value(over)?);
    let found = ratios.iter().find(|ratio| ratio.of == of && ratio.over == over);
    Ok(found.map_or_else(
        || "not measured".to_owned(),
        |RecordedRatio { median, min, max, .. }| {
            let decimals = if *median < 0.1 { 3 } else { 2 };
            format!("{median:.decimals$} × ({min:.decimals$} – {max:.decimals$})")
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ratio as a run would record it.
    fn recorded(quantity: Quantity, median: f64) -> RecordedRatio {
        let (Quantity::Ratio(of, over) | Quantity::Cost(of, over, _)) = quantity else {
            panic!("{quantity:?} is no ratio");
        };
        RecordedRatio {
            of: serde_json::to_value(of).expect("a point"),
            over: serde_json::to_value(over).expect("a point"),
            median,
            min: median / 2.0,
            max: median * 2.0,
        }
    }

    #[test]
    fn a_ratio_stands_where_it_belongs_and_the_others_are_not_measured() {
        let lost = recorded(OWN_BEST[0].nftables, 0.53);
        let text = text(&[lost]).expect("a text");
        let row = text.lines().find(|line| line.contains(OWN_BEST[0].what));
        assert!(
            row.expect("a row")
                .ends_with("| 0.53 × (0.27 – 1.06) | not measured |"),
            "{text}"
        );
        assert_eq!(text.matches('×').count(), 1, "{text}");
    }

    #[test]
    fn small_ratios_keep_a_digit_that_counts() {
        let ratio = recorded(promises::XDP_OVER_FIB, 0.016);
        let cell = cell(&[ratio], promises::XDP_OVER_FIB).expect("a cell");
        assert_eq!(cell, "0.016 × (0.008 – 0.032)");
    }
}
