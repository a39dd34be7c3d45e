//! The simulated disk's rarer faults: one sync that lies, one write that goes astray.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use quorate_storage::disk::{Disk, DiskFile, OpenMode, SimDisk};

const SECTOR_BYTES: usize = 512;

fn file_of(disk: &SimDisk) -> Arc<dyn DiskFile> {
    let dir = Path::new("/d");
    disk.create_dir_all(dir).unwrap();
    let file = disk.open(&dir.join("f"), OpenMode::OpenOrCreate).unwrap();
    disk.sync_dir(dir).unwrap();
    file
}

fn bytes_of(disk: &SimDisk) -> Vec<u8> {
    disk.read_whole(Path::new("/d/f")).unwrap()
}

#[test]
fn what_a_sync_has_lied_about_is_lost_though_later_ones_tell_the_truth() {
    let disk = SimDisk::new();
    let file = file_of(&disk);
    disk.lie_once_after(1);
    for (place, byte) in [1, 2, 3].into_iter().enumerate() {
        let offset = place * SECTOR_BYTES;
        file.write_at(&[byte; SECTOR_BYTES], offset as u64).unwrap();
        file.sync_data().unwrap();
    }
    assert_eq!(bytes_of(&disk)[SECTOR_BYTES], 2);
    let after = disk.power_cut(1);
    let starts = |place| bytes_of(&after)[place * SECTOR_BYTES];
    assert_eq!([starts(0), starts(1), starts(2)], [1, 0, 3]);
}

#[test]
fn a_write_that_goes_astray_leaves_its_place_as_it_was_and_is_never_synced() {
    let mut went = 0;
    for seed in 0..20 {
        let disk = SimDisk::new();
        let file = file_of(&disk);
        file.write_at(&[1; 2 * SECTOR_BYTES], 0).unwrap();
        file.sync_data().unwrap();
        disk.misdirect_after("/f", 0, 1);
        file.write_at(&[2; SECTOR_BYTES], 0).unwrap();
        assert!(file.sync_data().is_err());
        assert!(disk.is_powered_off());
        let bytes = bytes_of(&disk.power_cut(seed));
        assert_eq!(bytes[0], 1);
        went += u32::from(bytes[SECTOR_BYTES] == 2);
    }
    assert!((1..20).contains(&went), "{went} of 20 were written");
}
