//! Power cuts, failing disks, flipped bits: what comes back is a state that
//! was, or an error.

#![allow(clippy::unwrap_used)]

mod engine_kit;

use std::collections::BTreeMap;
use std::path::Path;

use engine_kit::{DIR, Model, Opened, bytes, options};
use quorate_storage::disk::sim::{Dice, Fault, FaultError, Operation};
use quorate_storage::disk::{Disk, SimDisk};
use quorate_storage::engine::{EngineError, EngineOptions, RangeTable, ScanRequest};

const KEYS: u64 = 16;

/// Seeds to try; QUORATE_SEEDS asks for more (or fewer).
fn seeds(default: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("QUORATE_SEEDS").ok();
    0..asked
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(default)
}

/// States that were frozen, by position: what may be found after a crash.
#[derive(Default)]
struct Expected {
    frozen: BTreeMap<u64, Model>,
    /// Index up to which a flush was reported.
    reported: u64,
}

/// Compares a whole range with a model. Errors count as differences only when
/// `errors_pass` is false.
fn compare(table: &RangeTable, model: &Model, errors_pass: bool) -> Result<(), String> {
    let mut different = Vec::new();
    let mut look = |what: String, same: Result<bool, EngineError>| match same {
        Ok(true) => {}
        Ok(false) => different.push(what),
        Err(_) if errors_pass => {}
        Err(error) => different.push(format!("{what}: {error}")),
    };
    let mut times = vec![None, Some(model.floor()), Some(model.revision)];
    times.extend(
        model
            .revisions()
            .filter(|at| *at >= model.floor())
            .step_by(7)
            .map(Some),
    );
    for key in (0..KEYS).map(|key| model.key(key)) {
        for at in &times {
            let found = match at {
                None => table.get(&key),
                Some(at) => table.get_at(&key, *at),
            };
            look(
                format!("{key:?} at {at:?}"),
                found.map(|found| found == model.get(&key, *at)),
            );
        }
        let found = table.history(&key, usize::MAX);
        look(
            format!("history of {key:?}"),
            found.map(|found| found == model.history(&key, usize::MAX)),
        );
    }
    for (at, reverse) in times.iter().flat_map(|at| [(*at, false), (*at, true)]) {
        let request = ScanRequest {
            at,
            reverse,
            ..ScanRequest::default()
        };
        let found = table.scan(&request);
        look(
            format!("{request:?}"),
            found.map(|page| page.rows == model.scan(&request)),
        );
    }
    if different.is_empty() {
        Ok(())
    } else {
        Err(different.join("\n"))
    }
}

/// Opens again after a power cut, and says what does not fit.
fn recover(disk: &SimDisk, expected: &Expected) -> Result<(Opened, Model), String> {
    let opened = Opened::try_new(disk, options()).map_err(|error| error.to_string())?;
    let durable = opened.table.durable().map_or(0, |position| position.index);
    if durable < expected.reported {
        return Err(format!(
            "durable is {durable}, {} was reported",
            expected.reported
        ));
    }
    let model = match expected.frozen.get(&durable) {
        Some(model) => model.clone(),
        None if durable == 0 => Model::default(),
        None => return Err(format!("{durable} was never frozen")),
    };
    if durable > 0 {
        if opened.table.durable() != Some(model.position) {
            return Err("another term".to_owned());
        }
        let note = opened.table.meta(b"m").map_err(|error| error.to_string())?;
        if note != Some(bytes(&durable.to_string())) {
            return Err(format!("metadata {note:?} at {durable}"));
        }
    }
    if opened.table.floor() != model.floor() || opened.table.last_revision() != model.revision {
        return Err("another floor or revision".to_owned());
    }
    compare(&opened.table, &model, false)?;
    Ok((opened, model))
}

/// Writes and flushes until the power fails, several times over.
async fn live_through_cuts(seed: u64, lie: bool) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let mut disk = SimDisk::new();
    let mut expected = Expected::default();
    for cut in 0..4 {
        // The first opening creates files; it is cut as well.
        disk.fail_power_after(dice.below(if cut == 0 { 60 } else { 400 }));
        match recover(&disk, &expected) {
            Ok((opened, model)) => {
                disk.lie_about_sync(lie);
                work(&opened, model, &mut expected, &mut dice, &disk).await;
            }
            Err(_) if disk.is_powered_off() => {}
            Err(different) => return Err(different),
        }
        // Workers see that their disk is gone and end, as the process would.
        disk = disk.power_cut(dice.any());
    }
    disk.lie_about_sync(false);
    let (opened, mut model) = recover(&disk, &expected)?;
    let change = model.write(1, 1, Some(1));
    opened.table.apply(model.position, vec![change]);
    opened
        .table
        .flush_all(vec![])
        .await
        .map_err(|error| error.to_string())?;
    opened
        .engine
        .close()
        .await
        .map_err(|error| error.to_string())
}

async fn work(
    opened: &Opened,
    mut model: Model,
    expected: &mut Expected,
    dice: &mut Dice,
    disk: &SimDisk,
) {
    let table = &opened.table;
    for _ in 0..400 {
        if disk.is_powered_off() {
            return;
        }
        match dice.below(20) {
            0 | 1 => {
                expected.frozen.insert(model.position.index, model.clone());
                let note = Some(bytes(&model.position.index.to_string()));
                table.freeze(vec![(bytes("m"), note)]);
                let waits = model.position.index > 0 && dice.percent(60);
                let flushed = waits && table.flushed(model.position).await.is_ok();
                if flushed {
                    expected.reported = model.position.index;
                }
            }
            2 => tokio::task::yield_now().await,
            3 if dice.percent(30) => {
                let floor = model.floor() + (model.revision - model.floor()) / 2;
                model.set_floor(floor);
                model.position.index += 1;
                table.apply(model.position, vec![]);
                table.set_floor(floor);
            }
            4 if dice.percent(10) => {
                let keep = dice.percent(60);
                model.set_history(keep);
                model.position.index += 1;
                table.apply(model.position, vec![]);
                table.set_history(keep);
            }
            5 => opened.neighbours[0].freeze(vec![]),
            _ => {
                let value = dice.percent(80).then(|| dice.below(2000));
                let by = if dice.percent(50) {
                    1
                } else {
                    1 << dice.below(27)
                };
                let change = model.write(dice.below(KEYS), by, value);
                table.apply(model.position, vec![change]);
            }
        }
    }
}

#[tokio::test]
async fn a_power_cut_leaves_the_state_of_one_position() {
    for seed in seeds(60) {
        if let Err(different) = live_through_cuts(seed, false).await {
            panic!("seed {seed}: {different}");
        }
    }
}

#[tokio::test]
async fn a_disk_that_lies_about_syncs_is_found_out() {
    for seed in 0..100 {
        if live_through_cuts(seed, true).await.is_err() {
            return;
        }
    }
    panic!("the test above would not notice a missing sync");
}

#[tokio::test]
async fn a_failed_sync_is_final_and_memory_is_still_read() {
    for operation in [Operation::Sync, Operation::Write] {
        let disk = SimDisk::new();
        let opened = Opened::new(&disk, options());
        let mut model = Model::default();
        let change = model.write(1, 1, Some(7));
        opened.table.apply(model.position, vec![change]);
        disk.inject(Fault {
            operation,
            path_contains: "engine-0".to_owned(),
            after: 0,
            times: 1,
            error: FaultError::Broken,
        });
        let error = opened.table.flush_all(vec![]).await.unwrap_err();
        assert!(error.is_final(), "{error}");
        assert!(opened.engine.failed().is_some());
        assert!(opened.engine.on_failure().borrow().is_some());
        let change = model.write(2, 1, Some(8));
        opened.table.apply(model.position, vec![change]);
        for key in 1..3 {
            let key = model.key(key);
            assert_eq!(opened.table.get(&key).unwrap(), model.get(&key, None));
        }
        assert!(opened.table.flush_all(vec![]).await.is_err());
        assert_eq!(opened.table.durable(), None);
        assert!(opened.engine.drop_range(engine_kit::RANGE).is_err());
        assert!(opened.engine.close().await.is_err());
    }
}

/// A closed engine full of records of every kind, and its model.
async fn filled() -> (SimDisk, Model) {
    let disk = SimDisk::new();
    let opened = Opened::new(&disk, options());
    let mut model = Model::default();
    for number in 0..600_u64 {
        let value = (number % 5 != 0).then_some(number * 7 % 2000);
        let change = model.write(number * 13 % KEYS, 1 << (number % 24), value);
        opened.table.apply(model.position, vec![change]);
        if number % 100 == 99 {
            let note = Some(bytes("note"));
            opened
                .table
                .flush_all(vec![(bytes("m"), note)])
                .await
                .unwrap();
        }
    }
    opened.engine.close().await.unwrap();
    (disk, model)
}

#[tokio::test]
async fn a_flipped_bit_never_makes_wrong_data() {
    let (disk, model) = filled().await;
    let names = ["engine-0.redb", "engine-1.redb"].map(|name| Path::new(DIR).join(name));
    let files = names.clone().map(|path| disk.read_whole(&path).unwrap());
    let (mut refused, mut served) = (0, 0);
    for seed in seeds(200) {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new(DIR)).unwrap();
        for (path, data) in names.iter().zip(&files) {
            disk.write_atomically(path, data).unwrap();
        }
        let mut dice = Dice::new(seed);
        // The first blocks hold the header and the roots.
        let len = files[0].len() as u64;
        let reach = if dice.percent(30) {
            len.min(16 << 10)
        } else {
            len
        };
        let (offset, bit) = (dice.below(reach), dice.below(8) as u8);
        disk.flip_bit(&names[0], offset, bit).unwrap();
        match Opened::try_new(&disk, options()) {
            Ok(opened) => {
                let same = compare(&opened.table, &model, true);
                assert_eq!(same, Ok(()), "seed {seed}, bit {bit} of byte {offset}");
                let whole = compare(&opened.table, &model, false).is_ok();
                served += u64::from(whole);
                refused += u64::from(!whole);
            }
            Err(_) => refused += 1,
        }
    }
    let tried = refused + served;
    assert!(
        refused > tried / 20,
        "refused {refused} of {tried}: do reads reach the disk?"
    );
}

/// A block whose last write was lost is right by itself: nothing but what redb makes of it shows that
/// it is older than the rest.
#[tokio::test]
async fn an_engine_with_a_block_that_is_older_than_the_rest_is_opened_or_refused() {
    // docs/FORMAT-ENGINE.md: the first block, then each with its checksum.
    const FIRST_BYTES: usize = 4096;
    const BLOCK_BYTES: usize = 4100;
    let (disk, mut model) = filled().await;
    let names = ["engine-0.redb", "engine-1.redb"].map(|name| Path::new(DIR).join(name));
    let images = || names.clone().map(|path| disk.read_whole(&path).unwrap());
    let opened = Opened::new(&disk, options());
    let mut states = vec![images()];
    for number in 0..120 {
        let change = model.write(number * 7 % KEYS, 1, Some(number * 13 % 2000));
        opened.table.apply(model.position, vec![change]);
        if number % 10 == 9 {
            opened.table.flush_all(vec![]).await.unwrap();
            states.push(images());
        }
    }
    let mut refused = 0;
    for (number, [newer, second]) in states.iter().enumerate() {
        for [older, _] in &states[..number] {
            let len = older.len().min(newer.len());
            for at in (FIRST_BYTES..len).step_by(BLOCK_BYTES) {
                let block = at..(at + BLOCK_BYTES).min(len);
                if older[block.clone()] == newer[block.clone()] {
                    continue;
                }
                let disk = SimDisk::new();
                disk.create_dir_all(Path::new(DIR)).unwrap();
                let mut stale = newer.clone();
                stale[block.clone()].copy_from_slice(&older[block]);
                for (path, data) in names.iter().zip([&stale, second]) {
                    disk.write_atomically(path, data).unwrap();
                }
                refused += u64::from(Opened::try_new(&disk, options()).is_err());
            }
        }
    }
    assert!(refused > 0, "no older block was noticed");
}

#[tokio::test]
async fn a_folder_that_is_not_whole_is_refused() {
    let (disk, _) = filled().await;
    let again = Opened::new(&disk, options());
    assert!(matches!(
        Opened::try_new(&disk, options()),
        Err(EngineError::InUse)
    ));
    again.engine.close().await.unwrap();
    drop(again);
    // Another number of files is ignored: the folder's own counts.
    let other = Opened::new(
        &disk,
        EngineOptions {
            files: 5,
            ..options()
        },
    );
    assert!(other.table.durable().is_some());
    other.engine.close().await.unwrap();
    drop(other);
    let second = Path::new(DIR).join("engine-1.redb");
    disk.remove(&second).unwrap();
    assert!(matches!(
        Opened::try_new(&disk, options()),
        Err(EngineError::Folder { .. })
    ));
    disk.remove(&Path::new(DIR).join("engine-0.redb")).unwrap();
    assert!(Opened::try_new(&disk, options()).is_ok());
}

#[tokio::test]
async fn a_file_of_an_unknown_version_is_refused_by_name() {
    let (disk, _) = filled().await;
    let path = Path::new(DIR).join("engine-0.redb");
    disk.flip_bit(&path, 8, 1).unwrap();
    let error = Opened::try_new(&disk, options()).err().unwrap();
    assert!(
        matches!(
            error,
            EngineError::Version {
                found: 3,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
}
