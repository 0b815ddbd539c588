//! How TCP is watched, as the settings of a generation.

use bulkhead_abi::{Settings, tcp_rules};

use crate::ruleset::{MaximumSegment, Tcp};

/// [`Settings::tcp_rules`].
pub(super) fn rules(tcp: &Tcp) -> u32 {
    let mut rules = 0;
    if tcp.liberal {
        rules |= tcp_rules::LIBERAL;
    }
    if tcp.midstream {
        rules |= tcp_rules::MIDSTREAM;
    }
    rules
}

/// [`Settings::tcp_mss`].
pub(super) fn largest_segment(tcp: &Tcp) -> u32 {
    match tcp.maximum_segment {
        MaximumSegment::Keep => Settings::MSS_KEEP,
        MaximumSegment::Path => Settings::MSS_PATH,
        MaximumSegment::AtMost(bytes) => u32::from(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_has_its_number() {
        assert_eq!((rules(&Tcp::default()), largest_segment(&Tcp::default())), (0, 0));
        let all = Tcp {
            liberal: true,
            midstream: true,
            maximum_segment: MaximumSegment::AtMost(1360),
        };
        assert_eq!((rules(&all), largest_segment(&all)), (3, 1360));
        let path = Tcp {
            maximum_segment: MaximumSegment::Path,
            ..Tcp::default()
        };
        assert_eq!((rules(&path), largest_segment(&path)), (0, Settings::MSS_PATH));
    }
}
