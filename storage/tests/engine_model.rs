//! The engine against a plain map of all versions: whatever is in memory,
//! frozen or on disk, it answers as the map does.

#![allow(clippy::unwrap_used)]

mod engine_kit;

use bytes::Bytes;
use engine_kit::{DIR, Model, Opened, bytes, options};
use proptest::prelude::*;
use quorate_storage::disk::SimDisk;
use quorate_storage::engine::{EngineError, RangeTable, ScanRequest};

const KEYS: u64 = 12;

#[derive(Clone, Debug)]
enum Step {
    /// Key and the revision's distance from the last; no value: delete.
    Write(u64, u64, Option<u64>),
    Freeze,
    Flush,
    Hash,
    Floor(u64),
    History(bool),
    Reopen,
    Check(u64),
}

fn step() -> impl Strategy<Value = Step> {
    // Short and long distances, so that versions end in few or many buckets.
    let distance = prop_oneof![1_u64..4, (1_u64 << 22)..(1 << 26)];
    let value = prop::option::weighted(0.8, 0_u64..2000);
    prop_oneof![
        20 => (0..KEYS, distance, value).prop_map(|(key, by, value)| Step::Write(key, by, value)),
        2 => Just(Step::Freeze),
        2 => Just(Step::Flush),
        1 => Just(Step::Hash),
        1 => (0_u64..100).prop_map(Step::Floor),
        1 => any::<bool>().prop_map(Step::History),
        1 => Just(Step::Reopen),
        3 => any::<u64>().prop_map(Step::Check),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn answers_as_a_plain_map_does(steps in prop::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(run(steps));
    }
}

async fn run(steps: Vec<Step>) {
    let disk = SimDisk::new();
    let mut opened = Opened::new(&disk, options());
    let mut model = Model::default();
    for step in steps {
        let table = &opened.table;
        match step {
            Step::Write(key, by, value) => {
                let change = model.write(key, by, value);
                table.apply(model.position, vec![change]);
            }
            Step::Freeze => table.freeze(vec![(
                bytes("m"),
                Some(bytes(&model.position.index.to_string())),
            )]),
            Step::Flush => drop(table.flush_all(vec![]).await.unwrap()),
            Step::Hash => drop(table.hash().unwrap()),
            Step::Floor(percent) => {
                let floor = model.floor() + (model.revision - model.floor()) / 100 * percent;
                model.set_floor(floor);
                table.set_floor(floor);
            }
            Step::History(keep) => {
                model.set_history(keep);
                table.set_history(keep);
            }
            Step::Reopen => {
                table.flush_all(vec![]).await.unwrap();
                opened.engine.close().await.unwrap();
                drop(opened);
                opened = Opened::new(&disk, options());
            }
            Step::Check(salt) => check(&opened.table, &model, salt),
        }
    }
    check(&opened.table, &model, 7);
    opened.table.flush_all(vec![]).await.unwrap();
    check(&opened.table, &model, 77);
    opened.engine.close().await.unwrap();
    assert!(disk_has_no_leftovers(&disk));
}

fn disk_has_no_leftovers(disk: &SimDisk) -> bool {
    use quorate_storage::disk::Disk;
    let names = disk.list(std::path::Path::new(DIR)).unwrap();
    names.iter().all(|name| !name.ends_with(".new"))
}

/// Compares everything that can be asked.
fn check(table: &RangeTable, model: &Model, salt: u64) {
    assert_eq!(table.last_revision(), model.revision);
    assert_eq!(table.floor(), model.floor());
    let mut times = vec![model.floor(), model.revision, model.revision + 1];
    times.extend(model.revisions().filter(|at| *at >= model.floor()));
    let at = times[salt as usize % times.len()];
    for key in 0..KEYS {
        let name = model.key(key);
        assert_eq!(
            table.get(&name).unwrap(),
            model.get(&name, None),
            "{name:?}"
        );
        assert_eq!(
            table.get_at(&name, at).unwrap(),
            model.get(&name, Some(at)),
            "{name:?} at {at}"
        );
        let limit = 1 + salt as usize % 5;
        assert_eq!(
            table.history(&name, limit).unwrap(),
            model.history(&name, limit),
            "{name:?}"
        );
        assert_eq!(
            table.history(&name, usize::MAX).unwrap(),
            model.history(&name, usize::MAX)
        );
    }
    if let Some(below) = model.floor().checked_sub(1) {
        let error = table.get_at(&model.key(0), below).unwrap_err();
        assert!(matches!(error, EngineError::BelowFloor { .. }), "{error}");
    }
    for at in [None, Some(at)] {
        for reverse in [false, true] {
            check_scan(table, model, at, reverse, salt);
        }
    }
}

fn check_scan(table: &RangeTable, model: &Model, at: Option<u64>, reverse: bool, salt: u64) {
    let bound = |salt: u64| match salt % 4 {
        0 => Bytes::new(),
        _ => model.key(salt / 4 % (KEYS + 2)),
    };
    let mut request = ScanRequest {
        start: bound(salt / 3),
        end: bound(salt / 5),
        reverse,
        at,
        rows_max: 1 + salt as usize % 4,
        bytes_max: if salt.is_multiple_of(2) {
            usize::MAX
        } else {
            20
        },
        keys_only: salt.is_multiple_of(3),
    };
    let expected = model.scan(&request);
    let mut rows = Vec::new();
    loop {
        let page = table.scan(&request).unwrap();
        assert!(page.rows.len() <= request.rows_max);
        rows.extend(page.rows);
        match page.resume {
            Some(resume) if reverse => request.end = resume,
            Some(resume) => request.start = resume,
            None => break,
        }
    }
    assert_eq!(rows, expected, "{request:?}");
}

#[tokio::test]
async fn hashes_tell_logical_states_apart_and_nothing_else() {
    let (one, other) = (SimDisk::new(), SimDisk::new());
    let (one, other) = (Opened::new(&one, options()), Opened::new(&other, options()));
    let mut model = Model::default();
    for number in 0..300 {
        let change = model.write(number % 40, 1000, (number % 7 != 0).then_some(number));
        one.table.apply(model.position, vec![change.clone()]);
        other.table.apply(model.position, vec![change]);
        if number % 11 == 0 {
            one.table
                .flush_all(vec![(bytes("m"), Some(bytes("only here")))])
                .await
                .unwrap();
        }
        if number % 13 == 0 {
            assert_eq!(one.table.hash().unwrap(), other.table.hash().unwrap());
        }
    }
    let before = one.table.hash().unwrap();
    assert_eq!(before.0, model.position);
    let change = model.write(3, 1, Some(1));
    one.table.apply(model.position, vec![change]);
    assert_ne!(one.table.hash().unwrap().1, before.1);
    assert_eq!(other.table.hash().unwrap(), before);
}

#[tokio::test]
async fn a_long_scan_passes_over_deleted_keys_in_bounded_pages() {
    let disk = SimDisk::new();
    let opened = Opened::new(&disk, options());
    let mut model = Model::default();
    for key in 0..30_000 {
        let change = model.write(key, 1, Some(1));
        opened.table.apply(model.position, vec![change]);
    }
    opened.table.flush_all(vec![]).await.unwrap();
    for key in 1..29_999 {
        let change = model.write(key, 1, None);
        opened.table.apply(model.position, vec![change]);
    }
    for reverse in [false, true] {
        let mut request = ScanRequest {
            reverse,
            rows_max: 10,
            ..ScanRequest::default()
        };
        let (mut rows, mut pages) = (Vec::new(), 0);
        loop {
            let page = opened.table.scan(&request).unwrap();
            rows.extend(page.rows);
            pages += 1;
            match page.resume {
                Some(resume) if reverse => request.end = resume,
                Some(resume) => request.start = resume,
                None => break,
            }
        }
        assert_eq!(rows.len(), 2);
        assert!(pages > 5, "{pages} pages for 30,000 keys");
    }
}
