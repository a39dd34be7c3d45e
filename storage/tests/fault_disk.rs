//! The real disk with faults: what is held back, what a kill drops, what failing and full disks do.
//! A kill is played by a second disk on the same folder: it sees what the first handed over.

#![allow(clippy::unwrap_used)]

mod log_support;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log_support::{IDENTITY, append, entry};
use proptest::prelude::*;
use quorate_storage::disk::fault::tally_path;
use quorate_storage::disk::{Disk, DiskFile, FaultDisk, OpenMode, RealDisk};
use quorate_storage::log::{LogOptions, NodeLog};
use tempfile::TempDir;

struct Place {
    folder: TempDir,
    disk: FaultDisk,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let disk = FaultDisk::new(&folder.path().join("orders"), 1).unwrap();
        Self { folder, disk }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn order(&self, text: &str) {
        std::fs::write(self.path("orders"), text).unwrap();
    }

    fn tally(&self, what: &str) -> u64 {
        let text = std::fs::read_to_string(tally_path(&self.path("orders"))).unwrap();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let (_, number) = lines.find(|(name, _)| *name == what).unwrap();
        number.parse().unwrap()
    }

    fn open(&self, name: &str) -> Arc<dyn DiskFile> {
        self.disk
            .open(&self.path(name), OpenMode::OpenOrCreate)
            .unwrap()
    }

    fn on_disk(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }
}

fn seen(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn what_is_not_synced_is_seen_and_not_on_the_disk() {
    let place = Place::new();
    let file = place.open("file");
    file.write_at(b"synced", 0).unwrap();
    file.sync_data().unwrap();
    file.write_at(b"held", 2).unwrap();
    file.write_at(b"further", 2000).unwrap();
    assert_eq!(file.len().unwrap(), 2007);
    assert_eq!(&seen(&*file)[..6], b"syheld");
    assert_eq!(seen(&*place.open("file")), seen(&*file), "another handle");
    assert_eq!(place.on_disk("file"), b"synced", "a power cut leaves this");
    assert_eq!(place.tally("held"), 2 * 512);
    file.sync_data().unwrap();
    assert_eq!(place.on_disk("file"), seen(&*file));
    assert_eq!(place.tally("held"), 0);
}

#[test]
fn a_cut_waits_for_the_sync_as_well() {
    let place = Place::new();
    let file = place.open("file");
    file.write_at(&[7; 3000], 0).unwrap();
    file.sync_data().unwrap();
    file.set_len(100).unwrap();
    file.set_len(1500).unwrap();
    let wanted = [vec![7; 100], vec![0; 1400]].concat();
    assert_eq!(seen(&*file), wanted, "what was cut does not come back");
    assert_eq!(place.on_disk("file"), [7; 3000]);
    file.sync_data().unwrap();
    assert_eq!(place.on_disk("file"), wanted);
}

#[test]
fn a_renamed_file_keeps_what_is_held() {
    let place = Place::new();
    place.open("new").write_at(b"held", 0).unwrap();
    place
        .disk
        .rename(&place.path("new"), &place.path("name"))
        .unwrap();
    assert_eq!(seen(&*place.open("name")), b"held");
    // The name is there after a power cut, the bytes are not: the order was wrong.
    assert_eq!(place.on_disk("name"), b"");
    place.disk.remove(&place.path("name")).unwrap();
    assert_eq!(place.tally("held"), 0);
    place
        .disk
        .write_atomically(&place.path("name"), b"whole")
        .unwrap();
    assert_eq!(place.on_disk("name"), b"whole");
}

#[test]
fn a_removed_file_that_is_still_written_counts_for_nothing() {
    let place = Place::new();
    let file = place.open("file");
    file.write_at(b"held", 0).unwrap();
    place.disk.remove(&place.path("file")).unwrap();
    file.sync_data().unwrap();
    file.write_at(b"more", 0).unwrap();
    assert_eq!(place.tally("held"), 0);
}

#[test]
fn a_failed_sync_is_never_made_good() {
    let place = Place::new();
    let file = place.open("file");
    file.write_at(b"lost", 0).unwrap();
    place.order("sync-error");
    assert!(file.sync_data().is_err());
    assert!(place.disk.sync_dir(place.folder.path()).is_err());
    assert_eq!(place.tally("failed"), 2);
    place.order("");
    // As a system's page cache: the next sync succeeds, and has nothing to write.
    file.sync_data().unwrap();
    assert_eq!(seen(&*file), b"lost");
    assert_ne!(place.on_disk("file"), b"lost");
    file.write_at(b"done", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(place.on_disk("file"), b"done");
}

#[test]
fn a_full_disk_takes_nothing_and_keeps_what_it_has() {
    let place = Place::new();
    let file = place.open("file");
    file.write_at(b"first", 0).unwrap();
    place.order("full");
    let full = |result: io::Result<()>| result.unwrap_err().kind() == io::ErrorKind::StorageFull;
    assert!(full(file.write_at(b"second", 5)));
    assert!(full(file.set_len(9000)));
    let created = place.disk.open(&place.path("other"), OpenMode::CreateNew);
    assert!(full(created.map(drop)));
    assert_eq!(place.tally("refused"), 3);
    file.sync_data().unwrap();
    assert_eq!(place.on_disk("file"), b"first");
    place.order("");
    file.write_at(b"second", 5).unwrap();
}

#[test]
fn a_slow_disk_takes_its_time_at_syncs_alone() {
    const SLOWER: Duration = Duration::from_millis(300);
    let place = Place::new();
    let file = place.open("file");
    place.order("sync-ms 300");
    file.write_at(b"bytes", 0).unwrap();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| file.sync_data().unwrap());
        // While it waits, the bytes are not on the disk.
        assert_eq!(place.on_disk("file"), b"");
        assert_eq!(seen(&*file), b"bytes");
    });
    assert!(begin.elapsed() >= SLOWER);
    assert_eq!(place.tally("slowed"), 1);
}

#[test]
fn some_sectors_reach_the_disk_early() {
    let place = Place::new();
    place.order("write-back 50");
    let file = place.open("file");
    file.write_at(&[9; 64 * 512], 0).unwrap();
    let held = place.tally("held") / 512;
    assert!((10..54).contains(&held), "{held} of 64 sectors are held");
    let early = place.on_disk("file");
    let early = early.chunks(512).filter(|sector| **sector == [9; 512]);
    assert_eq!(early.count() as u64, 64 - held);
    file.sync_data().unwrap();
    assert_eq!(place.on_disk("file"), [9; 64 * 512]);
}

/// What the log acknowledges is on the disk at that moment, however early other sectors got there.
#[tokio::test]
async fn what_a_log_acknowledged_survives_a_kill() {
    for early in [0, 30, 100] {
        let place = Place::new();
        place.order(&format!("write-back {early}"));
        let disk = Arc::new(place.disk.clone());
        let open = |disk, name: &str| {
            let options = LogOptions::small(64 << 10);
            NodeLog::open(disk, &place.path(name), IDENTITY, options).unwrap()
        };
        let log = open(disk, "log");
        for index in 1..=200 {
            let entries = vec![entry(1, index, vec![index as u8; 700])];
            append(&log.group(1), entries).await.unwrap();
            if index % 40 == 0 {
                let copy = format!("copy-{index}");
                copy_folder(&place.path("log"), &place.path(&copy));
                let after = open(RealDisk::shared(), &copy);
                let found = after.group(1).read(1..index + 1, u64::MAX).unwrap();
                assert_eq!(found.len() as u64, index, "early {early}");
                after.close().await;
            }
        }
        log.close().await;
    }
}

#[test]
fn a_write_of_nothing_makes_no_file_longer() {
    let place = Place::new();
    std::fs::write(place.path("orders"), "write-back 0").unwrap();
    let file = place.open("file");
    file.write_at(&[], 1).unwrap();
    assert_eq!(seen(&*file), Vec::<u8>::new());
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (0..3000u64, prop::collection::vec(any::<u8>(), 0..1500))
        .prop_map(|(offset, data)| Step::Write(offset, data));
    let step = prop_oneof![
        4 => write,
        2 => (0..4000u64).prop_map(Step::SetLen),
        1 => Just(Step::Sync),
    ];
    prop::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is held or written early, what is seen is what a plain file would show, and a sync
    /// makes the file that.
    #[test]
    fn it_is_seen_as_a_plain_file(steps in steps(), early in 0..100u64) {
        let place = Place::new();
        std::fs::write(place.path("orders"), format!("write-back {early}")).unwrap();
        let plain_path = place.path("plain");
        let plain = RealDisk.open(&plain_path, OpenMode::CreateNew).unwrap();
        let file = place.open("file");
        for step in steps {
            for file in [&file, &plain] {
                match &step {
                    Step::Write(offset, data) => file.write_at(data, *offset).unwrap(),
                    Step::SetLen(len) => file.set_len(*len).unwrap(),
                    Step::Sync => file.sync_data().unwrap(),
                }
            }
            prop_assert_eq!(seen(&*file), seen(&*plain));
            if matches!(step, Step::Sync) {
                prop_assert_eq!(place.on_disk("file"), place.on_disk("plain"));
                prop_assert_eq!(place.tally("held"), 0);
            }
        }
    }
}
