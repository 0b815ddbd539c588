//! Sources against a data plane that only remembers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

use bulkhead_dataplane::pulse::Pulses;

use super::*;

/// What is in force, by hidden group; and how often it was told.
#[derive(Default)]
struct Remembered {
    groups: Mutex<BTreeMap<String, BTreeSet<Prefix>>>,
    calls: Mutex<Vec<String>>,
    broken: std::sync::atomic::AtomicBool,
    /// How many members a group may have; 0: any number.
    room: std::sync::atomic::AtomicUsize,
}

impl Remembered {
    fn with(ruleset: &Ruleset) -> Arc<Self> {
        let remembered = Self::default();
        remembered.commit(ruleset);
        Arc::new(remembered)
    }

    /// As the data plane does: members of groups it has stay.
    fn commit(&self, ruleset: &Ruleset) {
        let mut groups = self.groups.lock().expect("groups");
        let mut before = std::mem::take(&mut *groups);
        for group in ruleset.groups.iter().filter(|group| group.dynamic) {
            let begun = || group.members.iter().copied().collect();
            let members = before.remove(&group.name).unwrap_or_else(begun);
            groups.insert(group.name.clone(), members);
        }
    }

    fn shown(&self, group: &str) -> String {
        let groups = self.groups.lock().expect("groups");
        let Some(members) = groups.get(group) else {
            return "absent".to_owned();
        };
        let texts: Vec<String> = members.iter().map(|prefix| prefix.address.to_string()).collect();
        texts.join(" ")
    }

    #[track_caller]
    fn wait(&self, group: &str, members: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.shown(group) != members {
            assert!(
                Instant::now() < deadline,
                "{group} has {:?}, not {members:?}",
                self.shown(group)
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn change(
        &self,
        group: &str,
        call: String,
        change: impl FnOnce(&mut BTreeSet<Prefix>),
    ) -> Result<(), String> {
        if self.broken.load(std::sync::atomic::Ordering::Relaxed) {
            return Err("the data plane is broken".to_owned());
        }
        self.calls.lock().expect("calls").push(call);
        let mut groups = self.groups.lock().expect("groups");
        let members = groups.get_mut(group).ok_or_else(|| format!("no group {group}"))?;
        let mut changed = members.clone();
        change(&mut changed);
        let room = self.room.load(std::sync::atomic::Ordering::Relaxed);
        if room > 0 && changed.len() > room {
            return Err("the table is full".to_owned());
        }
        *members = changed;
        Ok(())
    }
}

impl Tables for Remembered {
    fn set_members(&self, group: &str, members: Vec<Prefix>) -> Result<(), String> {
        self.change(group, format!("set {group}"), |known| {
            *known = members.into_iter().collect()
        })
    }

    fn update_members(&self, group: &str, add: &[Prefix], remove: &[Prefix]) -> Result<(), String> {
        let call = format!("update {group} +{} -{}", add.len(), remove.len());
        self.change(group, call, |known| {
            known.extend(add);
            known.retain(|prefix| !remove.contains(prefix));
        })
    }
}

fn config(addresses: &str) -> Config {
    let text = format!(
        "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: {{ name: x }}\nspec:\n  addresses:\n{addresses}"
    );
    bulkhead_config::parse("x.yaml", text)
        .expect("a sound configuration")
        .config
}

fn list(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("a file");
    format!("file://{}", path.display())
}

/// A daemon's groups with their thread, until the end of the test.
struct Running {
    groups: Arc<Groups>,
    tables: Arc<Remembered>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(state: Option<&Path>, config: &Config) -> Self {
        Self::start_with(Groups::load(state, config), config)
    }

    fn start_with(groups: Arc<Groups>, config: &Config) -> Self {
        let mut ruleset = crate::translate::ruleset(config);
        groups.fill(config, &mut ruleset);
        let tables = Remembered::with(&ruleset);
        groups.begun();
        let (keeper, weak) = (groups.clone(), Arc::downgrade(&tables));
        let weak: Weak<dyn Tables> = weak;
        Self {
            groups,
            tables,
            thread: Some(std::thread::spawn(move || {
                keeper.keep(&weak, &Pulses::default().take("test", Duration::MAX))
            })),
        }
    }

    fn commit(&self, config: &Config) {
        let mut ruleset = crate::translate::ruleset(config);
        self.groups.fill(config, &mut ruleset);
        self.tables.commit(&ruleset);
        self.groups.follow(config, &*self.tables);
    }

    fn source(&self, config: &Config, kind: &str) -> report::GroupSource {
        let report = self.groups.report(config, None, true);
        let mut sources = report.groups.into_iter().flat_map(|group| group.sources);
        sources.find(|source| source.kind == kind).expect("a source")
    }

    #[track_caller]
    fn await_source(&self, config: &Config, kind: &str, what: impl Fn(&report::GroupSource) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !what(&self.source(config, kind)) {
            assert!(Instant::now() < deadline, "{:?}", self.source(config, kind));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.groups.close();
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()) || std::thread::panicking());
    }
}

use crate::report;

#[test]
fn hidden_groups_are_not_literals() {
    assert!(is_hidden("infected/feed") && is_hidden("infected/dns") && is_hidden("infected/manual"));
    assert!(!is_hidden("10.0.0.0/8") && !is_hidden("infected"));
}

#[test]
fn a_list_is_followed_kept_and_held() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = list(
        directory.path(),
        "list",
        "192.0.2.1\n192.0.2.2\nnonsense\n192.0.2.3\n192.0.2.4\n",
    );
    let config = config(&format!(
        "    - {{ name: a, feed: {{ url: \"{url}\", interval: 1s, hold: 2s }} }}\n"
    ));
    let state = directory.path().join("state");
    {
        let running = Running::start(Some(&state), &config);
        running
            .tables
            .wait("a/feed", "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4");
        running.await_source(&config, "feed", |source| source.bad_entries == 1);
        list(directory.path(), "list", "192.0.2.1\n192.0.2.9\n");
        running
            .tables
            .wait("a/feed", "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.9");
        assert_eq!(running.source(&config, "feed").held, 3);
        running.tables.wait("a/feed", "192.0.2.1 192.0.2.9");
        let calls = running.tables.calls.lock().expect("calls").clone();
        assert_eq!(
            calls,
            [
                "update a/feed +4 -0",
                "update a/feed +1 -0",
                "update a/feed +0 -3"
            ]
        );
        running.await_source(&config, "feed", |source| source.last_error.is_none());
    }
    // The file is gone: what was kept is in force before anything is fetched, and for as long as hold says.
    std::fs::remove_file(directory.path().join("list")).expect("a file");
    let running = Running::start(Some(&state), &config);
    assert_eq!(running.tables.shown("a/feed"), "192.0.2.1 192.0.2.9");
    running.await_source(&config, "feed", |source| {
        source
            .last_error
            .as_ref()
            .is_some_and(|error| error.contains("No such file"))
    });
    running.tables.wait("a/feed", "");
    list(directory.path(), "list", "192.0.2.1\n");
    running.tables.wait("a/feed", "192.0.2.1");
}

#[test]
fn commits_keep_what_stays_and_drop_what_goes() {
    let directory = tempfile::tempdir().expect("a directory");
    let (one, two) = (
        list(directory.path(), "one", "192.0.2.1\n"),
        list(directory.path(), "two", "192.0.2.2\n"),
    );
    let feed = |name: &str, url: &str| {
        format!("    - {{ name: {name}, feed: {{ url: \"{url}\", interval: 1h }} }}\n")
    };
    let first = config(&feed("a", &one));
    let running = Running::start(None, &first);
    running.tables.wait("a/feed", "192.0.2.1");
    running
        .groups
        .add("a", &["198.51.100.1".to_owned()], None, &*running.tables)
        .expect("a change");

    // Another source begins with the members of the one before, so that there is no moment without.
    let absent = format!("file://{}/absent", directory.path().display());
    let moved = config(&(feed("a", &absent) + &feed("b", &two)));
    running.commit(&moved);
    running.tables.wait("b/feed", "192.0.2.2");
    running.await_source(&moved, "feed", |source| source.last_error.is_some());
    assert_eq!(running.tables.shown("a/feed"), "192.0.2.1");
    assert_eq!(running.tables.shown("a/manual"), "198.51.100.1");
    running.commit(&config(&(feed("a", &two) + &feed("b", &two))));
    running.tables.wait("a/feed", "192.0.2.2");

    // A commit that fails leaves everything as it was.
    let other = config(&feed("c", &one));
    let mut ruleset = crate::translate::ruleset(&other);
    running.groups.fill(&other, &mut ruleset);
    running.groups.follow(&moved, &*running.tables);
    assert_eq!(running.tables.shown("a/manual"), "198.51.100.1");
    let report = running.groups.report(&moved, Some("a"), false);
    assert_eq!(
        report.groups[0].sources.last().map(|source| source.prefixes),
        Some(1)
    );

    running.commit(&config("    - { name: a, members: [10.0.0.1] }\n"));
    assert_eq!(running.tables.shown("a/feed"), "absent");
    assert_eq!(running.tables.shown("a/manual"), "198.51.100.1");
}

#[test]
fn a_data_plane_that_refuses_is_told_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = list(directory.path(), "list", "192.0.2.1\n");
    let config = config(&format!(
        "    - {{ name: a, feed: {{ url: \"{url}\", interval: 1s }} }}\n"
    ));
    let running = Running::start(None, &config);
    running.tables.wait("a/feed", "192.0.2.1");
    let broken = |yes| {
        running
            .tables
            .broken
            .store(yes, std::sync::atomic::Ordering::Relaxed)
    };
    broken(true);
    let error = running
        .groups
        .add("a", &["198.51.100.1".to_owned()], None, &*running.tables)
        .expect_err("a failure");
    assert_eq!(error.message, "nothing was changed: the data plane is broken");
    list(directory.path(), "list", "192.0.2.1\n192.0.2.2\n");
    running.await_source(&config, "feed", |source| {
        !source.in_force && source.last_error.is_some()
    });
    broken(false);
    running.tables.wait("a/feed", "192.0.2.1 192.0.2.2");
    running.await_source(&config, "feed", |source| {
        source.in_force && source.last_error.is_none()
    });
    assert_eq!(running.tables.shown("a/manual"), "");
}

#[test]
fn members_by_hand_end_in_time_and_outlive_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = config("    - { name: a, members: [] }\n");
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    {
        let running = Running::start(Some(directory.path()), &config);
        let add = |addresses: &[&str], lasting| {
            running
                .groups
                .add("a", &texts(addresses), lasting, &*running.tables)
        };
        let changed = add(&["192.0.2.1", "192.0.2.4-192.0.2.5"], None).expect("a change");
        assert_eq!((changed.added, changed.members, changed.kept), (2, 2, true));
        add(&["192.0.2.9"], Some(Duration::from_secs(1))).expect("a change");
        assert_eq!(running.tables.shown("a/manual"), "192.0.2.1 192.0.2.4 192.0.2.9");
        running.tables.wait("a/manual", "192.0.2.1 192.0.2.4");
        // Said again, for a time: it is not added twice, and ends.
        let again = add(&["192.0.2.1"], Some(Duration::from_secs(3_600))).expect("a change");
        assert_eq!((again.added, again.members), (0, 2));
        for wrong in [
            &["::/0"][..],
            &["192.0.2.1 # note"],
            &["192.0.2.1,192.0.2.2"],
            &[],
        ] {
            add(wrong, None).expect_err("a refusal");
        }
        add(&["192.0.2.1"], Some(Duration::ZERO)).expect_err("a refusal");
    }
    let running = Running::start(Some(directory.path()), &config);
    assert_eq!(running.tables.shown("a/manual"), "192.0.2.1 192.0.2.4");
    let source = running.source(&config, "manual");
    let ends: Vec<bool> = source
        .members
        .iter()
        .map(|member| member.expires_in_seconds.is_some())
        .collect();
    assert_eq!(ends, [true, false]);
    let remove = |addresses: &[&str]| running.groups.remove("a", &texts(addresses), &*running.tables);
    remove(&["192.0.2.1", "192.0.2.77"]).expect_err("one of them is not there, so neither goes");
    assert_eq!(running.tables.shown("a/manual"), "192.0.2.1 192.0.2.4");
    remove(&["192.0.2.4/31"]).expect("a change");
    assert_eq!(running.tables.shown("a/manual"), "192.0.2.1");
    // A start without the group keeps it for a rollback, and forgets it after a month.
    drop(running);
    let (without, file) = (
        self::config("    - { name: b, members: [] }\n"),
        directory.path().join("groups/a.manual"),
    );
    drop(Running::start(Some(directory.path()), &without));
    let kept = Running::start(Some(directory.path()), &config);
    assert_eq!(kept.tables.shown("a/manual"), "192.0.2.1");
    drop(kept);
    let month_ago = SystemTime::now() - FORGOTTEN - Duration::from_secs(60);
    let age = || {
        let aged = std::fs::File::options().write(true).open(&file).expect("a file");
        aged.set_modified(month_ago).expect("a time");
    };
    age();
    drop(Running::start(Some(directory.path()), &config));
    assert!(file.exists(), "however old, it is configured");
    drop(Running::start(Some(directory.path()), &without));
    assert!(file.exists(), "it was configured until now");
    age();
    drop(Running::start(Some(directory.path()), &without));
    assert!(!file.exists());
}

#[test]
fn the_disk_never_goes_back_however_many_write() {
    let directory = tempfile::tempdir().expect("a directory");
    let groups = Groups::load(
        Some(directory.path()),
        &config("    - { name: a, members: [] }\n"),
    );
    let members = |number: u64| {
        let address = Ipv4Addr::from_bits(0xc000_0200 + u32::try_from(number).expect("a small number"));
        saved(Members::new(vec![IpPrefix::host(address.into())], Vec::new()))
    };
    // Each worker has its turn, as under the lock of the state, and writes when it comes to it: the newest ones first.
    let turns: Vec<u64> = (0..64).map(|_| groups.turn()).collect();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (groups, turns) = (&groups, &turns);
            scope.spawn(move || {
                for turn in turns.iter().rev().skip(worker).step_by(4) {
                    let saved = groups.save(*turn, "a", Source::Dns, &members(*turn));
                    saved.expect("a whole file");
                }
            });
        }
    });
    assert_eq!(groups.kept("a", Source::Dns), members(63));
    let files = std::fs::read_dir(directory.path().join("groups")).expect("a directory");
    assert_eq!(files.count(), 1, "nothing is left beside it");
    groups
        .save(groups.turn(), "a", Source::Dns, &members(70))
        .expect("a file");
    assert_eq!(groups.kept("a", Source::Dns), members(70));
}

/// Answers every question for A with this address, and for anything else with nothing.
fn dns(address: Ipv4Addr, ttl: u32) -> (u16, Arc<Mutex<Option<Ipv4Addr>>>) {
    dns_of(address, move |_| ttl)
}

/// The same, with a time for each name (as it stands in the question, lengths before labels).
fn dns_of(
    address: Ipv4Addr,
    mut ttl: impl FnMut(&[u8]) -> u32 + Send + 'static,
) -> (u16, Arc<Mutex<Option<Ipv4Addr>>>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = socket.local_addr().expect("an address").port();
    let current = Arc::new(Mutex::new(Some(address)));
    let says = current.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let Some(address) = *says.lock().expect("an address") else {
                continue;
            };
            // The question without its OPT record, then one answer that points back at its name.
            let question = &buffer[..length - 11];
            let is_a = question[question.len() - 3] == 1;
            let mut message = question.to_vec();
            message[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                message.extend([0xc0, 12, 0, 1, 0, 1]);
                message.extend(ttl(&question[12..question.len() - 4]).to_be_bytes());
                message.extend([0, 4]);
                message.extend(address.octets());
            }
            let _ = socket.send_to(&message, from);
        }
    });
    (port, current)
}

#[test]
fn names_are_looked_up_followed_and_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let (port, says) = dns(Ipv4Addr::new(192, 0, 2, 1), 1);
    let resolv_conf = directory.path().join("resolv.conf");
    std::fs::write(
        &resolv_conf,
        "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    )
    .expect("a file");
    let system = System {
        resolv_conf,
        hosts: directory.path().join("hosts"),
        port,
    };
    let load = |config: &Config| {
        let groups = Groups::load(Some(directory.path()), config);
        let mut groups = Arc::into_inner(groups).expect("nobody else has it");
        groups.system = system.clone();
        Arc::new(groups)
    };
    let config = config("    - { name: a, dns: [www.test] }\n");
    {
        let running = Running::start_with(load(&config), &config);
        running.tables.wait("a/dns", "192.0.2.1");
        // Asked again when its time is over, but not more often than every five seconds; who left lingers.
        *says.lock().expect("an address") = Some(Ipv4Addr::new(192, 0, 2, 2));
        running.tables.wait("a/dns", "192.0.2.1 192.0.2.2");
        assert_eq!(running.source(&config, "dns").held, 1);
        assert_eq!(
            running.source(&config, "dns").location.as_deref(),
            Some("www.test")
        );
        let deadline = Instant::now() + Duration::from_secs(10);
        let path = directory.path().join("groups/a.dns");
        while !std::fs::read_to_string(&path).is_ok_and(|text| text.contains("192.0.2.2")) {
            assert!(Instant::now() < deadline, "the addresses are not on the disk");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    *says.lock().expect("an address") = None;
    let running = Running::start_with(load(&config), &config);
    assert_eq!(
        running.tables.shown("a/dns"),
        "192.0.2.1 192.0.2.2",
        "before anybody is asked"
    );
    running.await_source(&config, "dns", |source| {
        source
            .last_error
            .as_ref()
            .is_some_and(|error| error.contains("no DNS server answers for www.test"))
    });
    assert_eq!(
        running.tables.shown("a/dns"),
        "192.0.2.1 192.0.2.2",
        "nobody knows better"
    );
}

/// What lives shorter is asked for earlier. A scheduler that goes by anything else asks for all of them alike.
#[test]
fn a_name_is_looked_up_again_when_its_own_time_is_over() {
    /// More than the least time between two lookups, so that nothing is clamped.
    const SHORT: u32 = 6;
    const LONG: u32 = 9;
    let directory = tempfile::tempdir().expect("a directory");
    let asked: Arc<Mutex<HashMap<Vec<u8>, Vec<Instant>>>> = Arc::default();
    let noted = asked.clone();
    let (port, _says) = dns_of(Ipv4Addr::new(192, 0, 2, 1), move |name| {
        let mut asked = noted.lock().expect("times");
        asked.entry(name.to_vec()).or_default().push(Instant::now());
        if name.starts_with(b"\x05short") {
            SHORT
        } else {
            LONG
        }
    });
    let resolv_conf = directory.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 127.0.0.1\n").expect("a file");
    let config = config("    - { name: a, dns: [long.test, short.test] }\n");
    let groups = Groups::load(Some(directory.path()), &config);
    let mut groups = Arc::into_inner(groups).expect("nobody else has it");
    groups.system = System {
        resolv_conf,
        hosts: directory.path().join("hosts"),
        port,
    };
    let _running = Running::start_with(Arc::new(groups), &config);
    for (name, ttl) in [
        (&b"\x05short\x04test\0"[..], SHORT),
        (b"\x04long\x04test\0", LONG),
    ] {
        let deadline = Instant::now() + Duration::from_secs(60);
        let [first, second] = loop {
            let asked = asked.lock().expect("times");
            if let Some([first, second, ..]) = asked.get(name).map(Vec::as_slice) {
                break [*first, *second];
            }
            drop(asked);
            assert!(Instant::now() < deadline, "{name:?} is not asked for again");
            std::thread::sleep(Duration::from_millis(5));
        };
        let after = second.duration_since(first);
        let ttl = Duration::from_secs(ttl.into());
        assert!(after >= ttl, "{name:?} after {after:?}");
        // Nothing but a slow machine keeps it; the other's time is three seconds away.
        assert!(after < ttl + Duration::from_secs(2), "{name:?} after {after:?}");
    }
}

#[test]
fn pods_are_members_while_they_are_named_and_stay_while_nobody_knows() {
    use bulkhead_kube::FoundPods;
    let state = tempfile::tempdir().expect("a directory");
    let paying = config(
        "    - { name: pay, members: [10.9.0.1], pods: { selector: app=pay, network: default/net } }\n",
    );
    let selection = paying.groups[0].pods.as_deref().expect("pods").clone();
    let found = |addresses: &[&str], pending| FoundPods {
        addresses: addresses
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect(),
        pods: addresses.len(),
        pending,
        ..FoundPods::default()
    };
    let running = Running::start(Some(state.path()), &paying);
    assert_eq!(
        running.groups.pod_selections(),
        [("pay".to_owned(), selection.clone())]
    );
    let set = |running: &Running, found: &FoundPods| {
        let in_force = running
            .groups
            .set_pods("pay", &selection, found, &*running.tables);
        assert!(in_force);
    };
    set(&running, &found(&["10.0.0.1", "2001:db8::1"], 1));
    assert_eq!(running.tables.shown("pay/pods"), "10.0.0.1 2001:db8::1");
    let source = running.source(&paying, "pods");
    assert_eq!(
        (source.prefixes, source.pending, source.age_seconds),
        (2, Some(1), Some(0.0))
    );
    assert_eq!(
        source.location.as_deref(),
        Some("app=pay on default/net (1 pending)")
    );
    // One leaves, one has its address now.
    set(&running, &found(&["2001:db8::1", "10.0.0.2"], 0));
    assert_eq!(running.tables.shown("pay/pods"), "10.0.0.2 2001:db8::1");
    assert!(running.groups.stale().is_empty());
    // The API is away: nobody leaves, and everybody can see that it is old.
    running.groups.pods_unknown("pay", &selection, "no answer");
    assert_eq!(running.tables.shown("pay/pods"), "10.0.0.2 2001:db8::1");
    let source = running.source(&paying, "pods");
    assert_eq!(source.last_error.as_deref(), Some("no answer"));
    assert!(source.age_seconds.is_some_and(|age| age < 5.0), "{source:?}");
    assert_eq!(
        running.groups.stale(),
        ["the pods of group pay are not known: no answer"]
    );
    // A restart without an API begins with them.
    drop(running);
    let again = Running::start(Some(state.path()), &paying);
    assert_eq!(again.tables.shown("pay/pods"), "10.0.0.2 2001:db8::1");
    set(&again, &found(&[], 0));
    assert_eq!(again.tables.shown("pay/pods"), "");
}

fn selected(config: &Config) -> bulkhead_config::PodSelection {
    config.groups[0].pods.as_deref().expect("pods").clone()
}

fn pods_at(addresses: &[&str]) -> bulkhead_kube::FoundPods {
    bulkhead_kube::FoundPods {
        addresses: addresses
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect(),
        pods: addresses.len(),
        ..bulkhead_kube::FoundPods::default()
    }
}

#[test]
fn members_of_another_selection_are_held_for_the_answer_and_no_longer() {
    let state = tempfile::tempdir().expect("a directory");
    let web = config("    - { name: admins, pods: { selector: app=web } }\n");
    let admin = config("    - { name: admins, pods: { selector: app=admin } }\n");
    let running = Running::start(Some(state.path()), &web);
    let set = |config: &Config, addresses: &[&str]| {
        let (selection, found) = (selected(config), pods_at(addresses));
        running
            .groups
            .set_pods("admins", &selection, &found, &*running.tables)
    };
    assert!(set(&web, &["10.0.0.1", "10.0.0.2"]));
    running.commit(&admin);
    // What was asked for before a commit does not count after it.
    assert!(!set(&web, &["10.0.0.3"]));
    assert_eq!(running.tables.shown("admins/pods"), "10.0.0.1 10.0.0.2");
    assert!(set(&admin, &["10.0.0.2"]));
    assert_eq!(running.tables.shown("admins/pods"), "10.0.0.2");
    // Nobody answers: they go, and everybody can see why.
    running.commit(&web);
    assert_eq!(running.tables.shown("admins/pods"), "10.0.0.2");
    running.tables.wait("admins/pods", "");
    let wrong = running.groups.stale();
    assert_eq!(
        wrong,
        ["the pods of group admins are not known: nobody has said yet which pods there are"]
    );
    assert!(set(&web, &["10.0.0.1"]));
    assert!(running.groups.stale().is_empty());
    // One that is refused on its way changes nothing, however long that is ago.
    let mut ruleset = crate::translate::ruleset(&admin);
    running.groups.fill(&admin, &mut ruleset);
    running.groups.follow(&web, &*running.tables);
    assert_eq!(running.groups.lock().pods["admins"].expiry(), None);
    assert_eq!(running.tables.shown("admins/pods"), "10.0.0.1");
    drop(running);
    // A start with another selection takes nothing of the one that was kept.
    let other = Running::start(Some(state.path()), &admin);
    assert_eq!(other.tables.shown("admins/pods"), "");
    drop(other);
    // A group that comes back in a running firewall has what was kept while the answer is waited for; then that is forgotten.
    let without = config("    - { name: admins, members: [] }\n");
    let running = Running::start(Some(state.path()), &without);
    running.commit(&web);
    assert_eq!(running.tables.shown("admins/pods"), "10.0.0.1");
    running.tables.wait("admins/pods", "");
    drop(running);
    let again = Running::start(Some(state.path()), &web);
    assert_eq!(again.tables.shown("admins/pods"), "");
}

#[test]
fn pods_that_leave_are_out_though_those_that_come_find_no_room() {
    let config = config("    - { name: pay, pods: { selector: app=pay } }\n");
    let running = Running::start(None, &config);
    let set = |addresses: &[&str]| {
        let (selection, found) = (selected(&config), pods_at(addresses));
        running
            .groups
            .set_pods("pay", &selection, &found, &*running.tables)
    };
    assert!(set(&["10.0.0.1", "10.0.0.2"]));
    running.tables.room.store(2, Ordering::Relaxed);
    assert!(!set(&["10.0.0.2", "10.0.0.3", "10.0.0.4"]));
    assert_eq!(running.tables.shown("pay/pods"), "10.0.0.2");
    assert_eq!(
        running.groups.stale(),
        ["the pods of group pay are not in force: the table is full"]
    );
    assert!(!running.source(&config, "pods").in_force);
    // The next one that leaves is out as well, and what finds room is in.
    assert!(!set(&["10.0.0.3", "10.0.0.4", "10.0.0.5"]));
    assert_eq!(running.tables.shown("pay/pods"), "");
    assert!(set(&["10.0.0.3", "10.0.0.4"]));
    assert_eq!(running.tables.shown("pay/pods"), "10.0.0.3 10.0.0.4");
    assert!(running.groups.stale().is_empty());
}

#[test]
fn every_group_that_refers_to_an_object_has_its_members() {
    use bulkhead_kube::ObjectMembers;
    let state = tempfile::tempdir().expect("a directory");
    let both = config(
        "    - { name: a, addressGroup: shop/partners }\n    - { name: b, members: [10.9.0.1], addressGroup: shop/partners }\n",
    );
    let members = |prefixes: &[(&str, u8)], pending| ObjectMembers {
        prefixes: prefixes
            .iter()
            .map(|(address, length)| IpPrefix {
                address: address.parse().expect("an address"),
                length: *length,
            })
            .collect(),
        pods: 0,
        pending,
    };
    let running = Running::start(Some(state.path()), &both);
    assert_eq!(running.groups.address_groups(), ["shop/partners"], "once");
    let set = |running: &Running, object: &str, members: &ObjectMembers| {
        let set = running
            .groups
            .set_address_group(object, members, &*running.tables);
        set.expect("in force");
    };
    set(
        &running,
        "shop/partners",
        &members(&[("10.0.0.0", 24), ("2001:db8::1", 128)], 1),
    );
    for group in ["a/addressgroup", "b/addressgroup"] {
        assert_eq!(running.tables.shown(group), "10.0.0.0 2001:db8::1", "{group}");
    }
    let source = running.source(&both, "addressgroup");
    assert_eq!(
        (source.location.as_deref(), source.pending, source.age_seconds),
        (Some("shop/partners (1 pending)"), Some(1), Some(0.0))
    );
    // Nobody knows: the members stay, and everybody can see that they are old.
    running
        .groups
        .address_group_unknown("shop/partners", "spec.members[0]: no");
    assert_eq!(running.tables.shown("a/addressgroup"), "10.0.0.0 2001:db8::1");
    assert_eq!(
        running.source(&both, "addressgroup").last_error.as_deref(),
        Some("spec.members[0]: no")
    );
    assert_eq!(
        running.groups.stale(),
        ["a", "b"].map(|group| format!(
            "the address group shop/partners of group {group} is not known: spec.members[0]: no"
        ))
    );
    // An object that nobody refers to any more is nobody's.
    running.commit(&config("    - { name: a, addressGroup: shop/other }\n"));
    set(&running, "shop/partners", &members(&[("10.0.0.3", 32)], 0));
    assert_eq!(running.tables.shown("a/addressgroup"), "10.0.0.0 2001:db8::1");
    drop(running);
    // A restart without an API begins with them.
    let again = Running::start(Some(state.path()), &both);
    assert_eq!(again.tables.shown("b/addressgroup"), "10.0.0.0 2001:db8::1");
    set(&again, "shop/partners", &members(&[], 0));
    assert_eq!(again.tables.shown("a/addressgroup"), "");
    assert!(again.groups.stale().is_empty());
}

#[test]
fn a_commit_is_told_to_whoever_follows_the_groups() {
    use std::sync::atomic::AtomicUsize;
    let first = config("    - { name: a, members: [] }\n");
    let running = Running::start(None, &first);
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    running.groups.on_change(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    running.commit(&config("    - { name: a, pods: { selector: app } }\n"));
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert_eq!(running.groups.pod_selections().len(), 1);
    assert_eq!(running.tables.shown("a/pods"), "");
}
