//! Bits that flip on the disk: a log is either what was written, or refuses;
//! it never gives wrong data, and never quietly less.

#![allow(clippy::unwrap_used)]

mod log_support;

use std::time::Duration;

use log_support::{
    Model, append, entry, finish, first_seed, folder, open, seeds, shared, simulate,
};
use quorate_storage::disk::sim::Dice;
use quorate_storage::disk::{Disk, OpenMode, SimDisk};
use quorate_storage::log::{LogError, LogId, LogOptions, NodeLog, Vote, inspect};

const GROUPS: u64 = 4;

fn options() -> LogOptions {
    // Nothing stays in memory: every read goes to the disk.
    LogOptions {
        cache_bytes_max: 0,
        ..LogOptions::small(32 << 10)
    }
}

/// Fills a log with some of everything, over some segments.
async fn fill(log: &NodeLog, dice: &mut Dice) {
    for round in 0..40 {
        let group = log.group(dice.below(GROUPS));
        let next = group.last().map_or(1, |last| last.index + 1);
        let payload = |dice: &mut Dice| {
            let len = dice.below(1500);
            (0..len).map(|_| dice.any() as u8).collect::<Vec<u8>>()
        };
        let entries = (next..next + 1 + dice.below(3))
            .map(|index| entry(round, index, payload(dice)))
            .collect();
        append(&group, entries).await.unwrap();
        match dice.below(10) {
            0 => {
                let vote = Vote {
                    term: round,
                    node: dice.below(3),
                    committed: true,
                };
                finish(|done| group.save_vote(vote, done)).await.unwrap();
            }
            1 => finish(|done| group.truncate_after(Some(next), done))
                .await
                .unwrap(),
            2 => {
                let id = LogId {
                    term: round,
                    index: next,
                };
                finish(|done| group.purge(id, done)).await.unwrap();
            }
            _ => {}
        }
    }
}

/// A place in one of the log's files, mostly where something was written.
fn any_place(disk: &SimDisk, dice: &mut Dice) -> (std::path::PathBuf, u64) {
    let names = disk.list(folder()).unwrap();
    let names: Vec<_> = names
        .iter()
        .filter(|name| name.starts_with("segment"))
        .collect();
    let path = folder().join(names[dice.below(names.len() as u64) as usize]);
    let file = disk.open(&path, OpenMode::ReadOnly).unwrap();
    let bound = match dice.below(10) {
        0 => 64,
        1 => 4096 + 128,
        _ => file.len().unwrap(),
    };
    (path, dice.below(bound))
}

fn is_damage(error: &LogError) -> bool {
    matches!(error, LogError::Damaged { .. })
}

/// One flipped bit in a log that came to rest; then again through the log
/// that was open all the time.
async fn flip(seed: u64) -> bool {
    let mut dice = Dice::new(seed);
    let disk = SimDisk::new();
    let log = open(&disk, options()).unwrap();
    fill(&log, &mut dice).await;
    // The seal goes to disk.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let written = Model::of(&log, 0..GROUPS).unwrap();
    let disk = disk.power_cut(dice.any());
    let (path, offset) = any_place(&disk, &mut dice);
    disk.flip_bit(&path, offset, dice.below(8) as u8).unwrap();

    let report = inspect(&shared(&disk), folder()).unwrap();
    match open(&disk, options()) {
        Ok(log) => {
            assert_eq!(
                Model::of(&log, 0..GROUPS).unwrap(),
                written,
                "seed {seed}: wrong data"
            );
            assert!(
                report.damage.is_none(),
                "seed {seed}: the report sees what is not there"
            );
            false
        }
        Err(error) => {
            assert!(is_damage(&error), "seed {seed}: {error}");
            assert!(
                report.damage.is_some(),
                "seed {seed}: the report misses the damage"
            );
            true
        }
    }
}

#[test]
fn a_flipped_bit_is_harmless_or_damage() {
    let seeds = first_seed()..first_seed() + seeds(300);
    let tried = seeds.end - seeds.start;
    let damaged = seeds.filter(|seed| simulate(flip(*seed))).count() as u64;
    assert!(
        tried == 1 || damaged > tried / 10,
        "only {damaged} of {tried} flips hit anything"
    );
}

#[test]
fn a_flipped_bit_under_an_open_log_is_never_read() {
    for seed in first_seed()..first_seed() + seeds(200) {
        simulate(async {
            let mut dice = Dice::new(seed);
            let disk = SimDisk::new();
            let log = open(&disk, options()).unwrap();
            fill(&log, &mut dice).await;
            let written = Model::of(&log, 0..GROUPS).unwrap();
            let (path, offset) = any_place(&disk, &mut dice);
            disk.flip_bit(&path, offset, dice.below(8) as u8).unwrap();
            match Model::of(&log, 0..GROUPS) {
                Ok(found) => assert_eq!(found, written, "seed {seed}: wrong data"),
                Err(error) => assert!(is_damage(&error), "seed {seed}: {error}"),
            }
        });
    }
}

/// The last batch before a power cut, damaged: a proof that follows it tells
/// that from a torn write.
#[test]
fn damage_in_the_last_batch_is_told_from_a_torn_tail() {
    simulate(async {
        let disk = SimDisk::new();
        let log = open(&disk, options()).unwrap();
        append(&log.group(1), vec![entry(1, 1, vec![5; 3000])])
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let report = inspect(&shared(&disk), folder()).unwrap();
        let (segment, end) = report.end;
        let disk = disk.power_cut(1);
        let path = folder().join(format!("segment-{segment:016x}.log"));
        disk.flip_bit(&path, end - 1500, 0).unwrap();
        let error = open(&disk, options()).unwrap_err();
        assert!(is_damage(&error), "{error}");
    });
}

#[test]
fn a_missing_segment_is_damage() {
    for lost in 0..3 {
        simulate(async {
            let disk = SimDisk::new();
            let log = open(&disk, options()).unwrap();
            for index in 1..100 {
                append(&log.group(1), vec![entry(1, index, vec![1; 1000])])
                    .await
                    .unwrap();
            }
            log.close().await;
            let mut names = disk.list(folder()).unwrap();
            names.retain(|name| name.starts_with("segment"));
            assert!(names.len() > 3);
            disk.remove(&folder().join(&names[lost])).unwrap();
            let error = open(&disk, options()).unwrap_err();
            assert!(is_damage(&error), "{error}");
        });
    }
}

#[test]
fn a_file_that_was_cut_is_damage() {
    simulate(async {
        let disk = SimDisk::new();
        let log = open(&disk, options()).unwrap();
        append(&log.group(1), vec![entry(1, 1, vec![1; 100])])
            .await
            .unwrap();
        log.close().await;
        let path = folder().join("segment-0000000000000001.log");
        let file = disk.open(&path, OpenMode::Existing).unwrap();
        file.set_len(file.len().unwrap() / 2).unwrap();
        let error = open(&disk, options()).unwrap_err();
        assert!(is_damage(&error), "{error}");
    });
}

/// The last batch, without its seal: as long as it is one sector, damage still
/// does not look like a torn write.
#[test]
fn damage_in_a_single_sector_needs_no_proof() {
    let mut unsealed = 0;
    for seed in 0..60 {
        simulate(async {
            let disk = SimDisk::new();
            let log = open(&disk, options()).unwrap();
            append(&log.group(1), vec![entry(1, 1, vec![5; 300])])
                .await
                .unwrap();
            let report = inspect(&shared(&disk), folder()).unwrap();
            let (segment, end) = report.end;
            let disk = disk.power_cut(seed);
            let path = folder().join(format!("segment-{segment:016x}.log"));
            let file = disk.open(&path, OpenMode::ReadOnly).unwrap();
            let mut next = [0; 512];
            file.read_at(&mut next, end).unwrap();
            unsealed += u64::from(next == [0; 512]);
            let mut dice = Dice::new(seed);
            disk.flip_bit(&path, end - 512 + dice.below(400), dice.below(8) as u8)
                .unwrap();
            let error = open(&disk, options()).unwrap_err();
            assert!(is_damage(&error), "{error}");
        });
    }
    assert!(unsealed > 10, "only {unsealed} cuts took the seal");
}

/// A record with a right checksum, at another one's place.
#[test]
fn a_record_in_the_wrong_place_is_not_read() {
    simulate(async {
        let disk = SimDisk::new();
        let log = open(&disk, options()).unwrap();
        let payloads = [vec![0xA1; 200], vec![0xB2; 200]];
        for (index, payload) in (1..).zip(&payloads) {
            append(&log.group(1), vec![entry(1, index, payload.clone())])
                .await
                .unwrap();
        }
        let path = folder().join("segment-0000000000000001.log");
        let bytes = disk.read_whole(&path).unwrap();
        let [to, from] = payloads.map(|payload| {
            bytes
                .windows(200)
                .position(|window| window == payload)
                .unwrap()
                - 36
        });
        let file = disk.open(&path, OpenMode::Existing).unwrap();
        file.write_at(&bytes[from..from + 236], to as u64).unwrap();
        let error = log.group(1).read(1..3, 1000).unwrap_err();
        assert!(is_damage(&error), "{error}");
        assert_eq!(log.group(1).read(2..3, 1000).unwrap().len(), 1);
    });
}
