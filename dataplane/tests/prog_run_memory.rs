//! What the tables say they take.

use bulkhead_abi::NeighbourKey;
use bulkhead_dataplane::bpf::{Object, Sizes};
use bulkhead_testkit::privileged;

/// Whether the kernel tells what maps allocate, and not keys and values times entries (before 6.4, commit 90a5527d7686).
fn tells_what_it_allocates() -> bool {
    let uname = nix::sys::utsname::uname().expect("uname");
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().expect("a version"));
    (numbers.next(), numbers.next()) >= (Some(6), Some(4))
}

#[test]
fn prog_run_tables_say_what_they_take() {
    if !privileged() {
        return;
    }
    let object = Object::load(&Sizes::small()).expect("the kernel takes the object");
    for number in 0..5_000_u32 {
        let key = NeighbourKey {
            ifindex: 1,
            address_be: [number.to_be(), 0, 0, 0],
            ..NeighbourKey::default()
        };
        // Until it is full.
        if object.maps.neighbours.set(&key, &1).is_err() {
            break;
        }
    }
    let tables = object.memory().expect("the kernel says");
    let table = |name: &str| {
        let found = tables.iter().find(|table| table.name == name);
        found.unwrap_or_else(|| panic!("{name} is not among {tables:#?}"))
    };
    let neighbours = table("NEIGHBOURS");
    assert_eq!((neighbours.entries, neighbours.capacity), (4_096, 4_096));
    assert!(neighbours.bytes > 4_096 * 28, "{neighbours:?}");
    let full = Sizes::small().full_bytes();
    let estimate = full
        .iter()
        .find(|(name, _)| *name == "NEIGHBOURS")
        .expect("estimated");
    let least = if tells_what_it_allocates() {
        estimate.1 / 2
    } else {
        0
    };
    assert!(
        (least..=estimate.1).contains(&neighbours.bytes),
        "{estimate:?}: {neighbours:?}"
    );
    assert_eq!((table("FLOWS4").entries, table("FLOWS4").capacity), (0, 131_072));
    assert_eq!(table("HALF_OPEN4").entries, 0);
    // Preallocated: keys, values and, where they are told, what links them.
    let entry_bytes = if tells_what_it_allocates() { 200 } else { 150 };
    assert!(
        table("HALF_OPEN4").bytes > 32_768 * entry_bytes,
        "{:?}",
        table("HALF_OPEN4")
    );
    assert_eq!(table("PREFIXES4").entries, 0);
    assert_eq!(table("LIVE").entries, 1);
    assert_eq!(table("EVENTS").capacity, 1 << 20);
    for name in ["COUNTERS", "SCRATCH", "HOSTS6", "DECISIONS"] {
        assert!(table(name).bytes > 0, "{name}");
    }
}
