//! Bounds of memory and of time.

use super::*;

const MS: u64 = 1_000_000;

fn key(source: u32, id: u32) -> FragmentKey {
    FragmentKey {
        source_be: [source, 0, 0, 0],
        id,
        protocol: 17,
        family: 4,
        ..FragmentKey::default()
    }
}

fn fragment(bytes: usize) -> Fragment {
    Fragment {
        ifindex: 3,
        vlan: 0,
        frame: vec![7; bytes],
    }
}

#[test]
fn fragments_leave_in_the_order_in_which_they_came() {
    let mut hold = Hold::default();
    for bytes in [100, 200, 300] {
        assert_eq!(hold.add(key(1, 1), fragment(bytes), 0), 0);
    }
    hold.add(key(1, 2), fragment(400), 0);
    assert_eq!(hold.size(), (4, 1000));
    let lengths: Vec<usize> = hold.release(&key(1, 1)).iter().map(|f| f.frame.len()).collect();
    assert_eq!(lengths, [100, 200, 300]);
    assert!(hold.release(&key(1, 1)).is_empty());
    assert_eq!(hold.size(), (1, 400));
    assert_eq!(hold.expire(PATIENCE_NS), 1);
    assert_eq!((hold.size(), hold.idle_ns(PATIENCE_NS)), ((0, 0), None));
}

#[test]
fn looks_come_at_growing_distances_until_patience_ends() {
    let mut hold = Hold::default();
    hold.add(key(1, 1), fragment(100), 0);
    let (mut now, mut looks) = (0, Vec::new());
    while let Some(idle) = hold.idle_ns(now) {
        now += idle;
        looks.extend(hold.due(now).iter().map(|_| now / MS));
        if hold.expire(now) == 1 {
            break;
        }
    }
    assert_eq!(looks[..8], [1, 3, 7, 15, 31, 63, 95, 127]);
    assert_eq!(now, PATIENCE_NS);
}

#[test]
fn the_oldest_gives_way_and_nothing_grows() {
    let mut hold = Hold::default();
    let mut dropped = 0;
    for number in 0..10_000 {
        // Each a source of its own: a flood with forged addresses.
        dropped += hold.add(key(number, 1), fragment(60), u64::from(number) * MS / 10);
        assert!(hold.arrivals.len() <= 2 * MOST_FRAGMENTS + 1);
    }
    assert_eq!(hold.size(), (MOST_FRAGMENTS, MOST_FRAGMENTS * 60));
    assert_eq!(dropped, 10_000 - MOST_FRAGMENTS);
    assert!(hold.release(&key(9_743, 1)).is_empty(), "an old one");
    assert_eq!(hold.release(&key(9_744, 1)).len(), 1);
    assert_eq!(hold.expire(u64::MAX), MOST_FRAGMENTS - 1);
    assert!(hold.sources.is_empty() && hold.datagrams.is_empty() && hold.arrivals.is_empty());
}

#[test]
fn bytes_are_bounded_too() {
    let mut hold = Hold::default();
    for number in 0..200 {
        hold.add(key(number, 1), fragment(9_000), 0);
    }
    assert_eq!(hold.size(), (MOST_BYTES / 9_000, MOST_BYTES / 9_000 * 9_000));
}

#[test]
fn one_source_does_not_take_all_the_room() {
    let mut hold = Hold::default();
    for id in 0..1_000 {
        let dropped = hold.add(key(1, id), fragment(60), 0);
        assert_eq!(dropped, usize::from(id as usize >= MOST_OF_A_SOURCE));
    }
    assert_eq!(hold.size().0, MOST_OF_A_SOURCE);
    // A /64 is one source.
    for host in 0..1_000 {
        let key = FragmentKey {
            source_be: [0xdb8_2001, 1, host, host],
            family: 6,
            ..FragmentKey::default()
        };
        hold.add(key, fragment(60), 0);
    }
    assert_eq!(hold.size().0, 2 * MOST_OF_A_SOURCE);
}

#[test]
fn letting_go_leaves_no_trace() {
    let mut hold = Hold::default();
    for number in 0..100_000 {
        hold.add(key(1, number), fragment(60), u64::from(number));
        assert_eq!(hold.release(&key(1, number)).len(), 1);
        assert!(hold.arrivals.len() <= 2 * MOST_FRAGMENTS + 1);
    }
    assert_eq!(hold.size(), (0, 0));
    assert!(hold.sources.is_empty() && hold.datagrams.is_empty());
    assert_eq!(hold.expire(u64::MAX), 0);
}
