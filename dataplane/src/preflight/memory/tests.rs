//! The sum against the kernel, and the verdict against the sum.

use std::collections::BTreeMap;

use super::*;
use crate::bpf::Object;
use crate::preflight::Status;
use crate::preflight::tests::privileged;

/// The maps of this process, as the kernel describes them: (key, value, entries) to bytes.
fn maps_of_this_process() -> BTreeMap<(u64, u64, u64), u64> {
    let descriptors = fs::read_dir("/proc/self/fdinfo").expect("/proc is mounted");
    let texts = descriptors.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    texts
        .filter_map(|text| {
            let number = |name| field(&text, name);
            number("map_type:")?;
            let shape = (
                number("key_size:")?,
                number("value_size:")?,
                number("max_entries:")?,
            );
            Some((shape, number("memlock:")?))
        })
        .collect()
}

/// Sizes that no other test uses, so that the maps are found among those of tests that run at the same time.
const UNUSUAL: Sizes = Sizes {
    sessions: 10_007,
    half_open: 5_003,
    rules: 7_001,
    addresses: 9_001,
    routes: 3_001,
    neighbours: 2_003,
};

#[test]
fn prog_run_the_sum_is_what_the_kernel_allocates() {
    if !privileged() {
        return;
    }
    // Before, the kernel multiplies keys and values by entries, whatever it allocates (commit 90a5527d7686).
    let release = crate::preflight::kernel::release();
    let series = release.split('.').map(str::parse::<u32>).take(2);
    if series
        .collect::<Result<Vec<_>, _>>()
        .is_ok_and(|series| series < vec![6, 4])
    {
        println!("SKIPPED: needs a kernel that tells what maps allocate, Linux 6.4 or newer");
        return;
    }
    let object = Object::load(&UNUSUAL).expect("the object loads");
    let maps = maps_of_this_process();
    for table in tables(&UNUSUAL) {
        let shape = (
            table.key_bytes as u64,
            table.value_bytes as u64,
            u64::from(table.entries),
        );
        let bytes = maps
            .get(&shape)
            .unwrap_or_else(|| panic!("no map like {table:?} among {maps:#?}"));
        let expected = table.at_start_bytes();
        // Half again as much, and a few pages: locks per CPU, one spare entry per CPU.
        let most = expected + expected / 2 + 65_536;
        assert!(
            (expected..most).contains(bytes),
            "{}: {bytes} bytes, expected {expected}",
            table.name
        );
    }
    drop(object);
}

#[test]
fn a_table_that_evicts_has_its_entries_from_the_start() {
    let growing = HashTable::new::<[u8; 13], [u8; 7]>("test", 1000).traffic();
    assert_eq!(growing.element_bytes(), 48 + 16 + 8);
    assert_eq!(growing.at_start_bytes(), 1024 * 16);
    assert_eq!(growing.traffic_bytes(), 1000 * 96);
    let evicting = growing.evicting();
    assert_eq!(
        (evicting.at_start_bytes(), evicting.traffic_bytes()),
        (1024 * 16 + 1000 * 72, 0)
    );
    assert_eq!(HashTable::new::<u32, u32>("rules", 1000).traffic_bytes(), 0);
}

#[test]
fn size_classes_are_the_allocators() {
    let classes = [8, 64, 65, 97, 129, 193, 300].map(size_class);
    assert_eq!(classes, [8, 64, 96, 128, 192, 256, 512]);
}

#[test]
fn the_verdict_follows_the_tighter_limit() {
    let footprint = Footprint {
        at_start_bytes: 100 << 20,
        busy_bytes: 300 << 20,
        most_bytes: 900 << 20,
    };
    let with = |mebibytes: u64| {
        judge(
            footprint,
            Some(Room {
                bytes: mebibytes << 20,
                limit: "left",
            }),
        )
    };
    assert_eq!((with(99).status, with(100).status), (Status::Warn, Status::Warn));
    assert!(with(99).found.contains("a start would run out") && !with(100).found.contains("a start would"));
    assert_eq!(with(300).status, Status::Ok);
    assert!(
        with(200)
            .found
            .contains("take 100 MiB at start, 300 MiB with every session in use, and 900 MiB at most"),
        "{}",
        with(200).found
    );
    assert!(with(200).found.ends_with("200 MiB are left"));
    assert!(
        with(200)
            .remedy
            .is_some_and(|remedy| remedy.contains("at least 300 MiB"))
    );
    assert_eq!(judge(footprint, None).status, Status::Warn);
}

#[test]
fn a_control_group_grants_what_the_tightest_above_it_leaves() {
    let root = std::env::temp_dir().join(format!("bht-cgroup-{}", std::process::id()));
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    };
    write("pod/memory.max", "1000\n");
    write("pod/memory.current", "600\n");
    write("pod/memory.stat", "anon 100\ninactive_file 50\n");
    write("pod/container/memory.max", "max\n");
    write("pod/container/memory.current", "600\n");
    let granted = |path| granted(&root, path, "memory.max", "memory.current", "inactive_file ");
    let (inner, host_path, above) = (
        granted("pod/container"),
        granted("elsewhere/container"),
        granted(""),
    );
    fs::remove_dir_all(&root).expect("removed");
    assert_eq!(inner, Some(1000 - (600 - 50)));
    assert_eq!((host_path, above), (None, None));
}

#[test]
fn a_field_is_the_number_behind_its_name() {
    let text = "MemTotal:       24684084 kB\nMemAvailable:   24024696 kB\n";
    assert_eq!(field(text, "MemAvailable:"), Some(24_024_696));
    assert_eq!(field(text, "MemFree:"), None);
}
