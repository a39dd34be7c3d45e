//! The disk seam: the simulated disk behaves as the real one does, until its
//! power is cut.

#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::path::Path;

use quorate_storage::disk::sim::{Fault, FaultError, Operation};
use quorate_storage::disk::{Disk, OpenMode, RealDisk, SimDisk};

fn behaves(disk: &dyn Disk, root: &Path) {
    let dir = root.join("a/b");
    disk.create_dir_all(&dir).unwrap();
    disk.create_dir_all(&dir).unwrap();
    assert!(disk.exists(&dir).unwrap());
    let (one, two) = (dir.join("one"), dir.join("two"));
    let kind = |path, mode| disk.open(path, mode).map(drop).unwrap_err().kind();
    assert_eq!(kind(&one, OpenMode::Existing), ErrorKind::NotFound);
    assert_eq!(kind(&one, OpenMode::ReadOnly), ErrorKind::NotFound);

    let file = disk.open(&one, OpenMode::CreateNew).unwrap();
    assert_eq!(kind(&one, OpenMode::CreateNew), ErrorKind::AlreadyExists);
    assert!(file.is_empty().unwrap());
    file.write_at(b"world", 6).unwrap();
    file.write_at(b"hello", 0).unwrap();
    assert_eq!(disk.read_whole(&one).unwrap(), b"hello\0world");
    let mut buffer = [0; 4];
    assert_eq!(
        file.read_at(&mut buffer, 8).unwrap_err().kind(),
        ErrorKind::UnexpectedEof
    );
    file.set_len(2).unwrap();
    file.set_len(4).unwrap();
    file.read_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"he\0\0");
    file.sync_data().unwrap();
    let reader = disk.open(&one, OpenMode::ReadOnly).unwrap();
    assert!(reader.write_at(b"x", 0).is_err());

    disk.write_atomically(&two, b"first").unwrap();
    disk.write_atomically(&two, b"2nd").unwrap();
    assert_eq!(disk.read_whole(&two).unwrap(), b"2nd");
    assert_eq!(disk.list(&dir).unwrap(), ["one", "two"]);
    assert_eq!(disk.list(root).unwrap(), [""; 0]);
    disk.rename(&one, &two).unwrap();
    assert_eq!(file.len().unwrap(), 4);
    assert_eq!(disk.read_whole(&two).unwrap(), b"he\0\0");
    disk.remove(&two).unwrap();
    assert_eq!(disk.remove(&two).unwrap_err().kind(), ErrorKind::NotFound);
    disk.sync_dir(&dir).unwrap();

    let lock = disk.lock_folder(&dir).unwrap();
    assert_eq!(
        disk.lock_folder(&dir).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    drop(lock);
    drop(disk.lock_folder(&dir).unwrap());
}

#[test]
fn both_disks_behave_alike() {
    let dir = tempfile::tempdir().unwrap();
    behaves(&RealDisk, dir.path());
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/root")).unwrap();
    behaves(&disk, Path::new("/root"));
}

/// What a power cut left of a file of eight sectors of 1, of which 2 were
/// written over without a sync: one letter a sector.
fn cut(seed: u64, synced: bool) -> String {
    let (disk, dir) = (SimDisk::new(), Path::new("/d"));
    disk.create_dir_all(dir).unwrap();
    let path = dir.join("file");
    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    file.write_at(&[1; 8 * 512], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(dir).unwrap();
    file.write_at(&[2; 8 * 512], 0).unwrap();
    if synced {
        file.sync_data().unwrap();
    }
    let disk = disk.power_cut(seed);
    assert!(file.len().is_err(), "old handles are dead");
    let bytes = disk.read_whole(&path).unwrap();
    let sectors = bytes.chunks(512).map(|sector| {
        assert!(
            sector.iter().all(|byte| *byte == sector[0]),
            "sectors are whole"
        );
        sector[0].to_string()
    });
    sectors.collect()
}

#[test]
fn a_power_cut_keeps_what_is_synced_and_any_part_of_the_rest() {
    let kinds: std::collections::BTreeSet<String> = (0..300).map(|seed| cut(seed, false)).collect();
    assert!(
        kinds.contains("11111111") && kinds.contains("22222222"),
        "{kinds:?}"
    );
    assert!(
        kinds.iter().any(|sectors| sectors.contains("2122")),
        "reordered: {kinds:?}"
    );
    assert!((0..50).all(|seed| cut(seed, true) == "22222222"));
    assert!(
        (0..50).all(|seed| cut(seed, false) == cut(seed, false)),
        "the seed decides"
    );
}

#[test]
fn names_are_durable_only_with_their_folder() {
    let survivors = |sync: bool| {
        let seeds = 0..40;
        let survives = seeds.filter(|seed| {
            let (disk, dir) = (SimDisk::new(), Path::new("/d"));
            disk.create_dir_all(dir).unwrap();
            let file = disk.open(&dir.join("new"), OpenMode::CreateNew).unwrap();
            file.sync_data().unwrap();
            if sync {
                disk.sync_dir(dir).unwrap();
            }
            disk.power_cut(*seed).exists(&dir.join("new")).unwrap()
        });
        survives.count()
    };
    assert_eq!(survivors(true), 40);
    assert!((5..35).contains(&survivors(false)));
}

#[test]
fn planned_faults_strike_when_and_where_they_should() {
    let (disk, dir) = (SimDisk::new(), Path::new("/d"));
    disk.create_dir_all(dir).unwrap();
    let file = disk.open(&dir.join("file"), OpenMode::CreateNew).unwrap();
    let other = disk.open(&dir.join("other"), OpenMode::CreateNew).unwrap();
    disk.inject(Fault {
        operation: Operation::Write,
        path_contains: "file".to_owned(),
        after: 1,
        times: 1,
        error: FaultError::Full,
    });
    other.write_at(b"x", 0).unwrap();
    file.write_at(b"x", 0).unwrap();
    assert_eq!(
        file.write_at(b"x", 0).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    file.write_at(b"x", 0).unwrap();

    disk.fail_power_after(1);
    file.write_at(b"x", 0).unwrap();
    file.write_at(b"x", 0).unwrap_err();
    assert!(disk.is_powered_off());
    file.read_at(&mut [0], 0).unwrap_err();
    assert!(disk.power_cut(0).list(dir).is_ok());
}
