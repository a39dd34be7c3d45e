//! Ranges that come and go: export, import, drop.

#![allow(clippy::unwrap_used)]

mod engine_kit;

use bytes::Bytes;
use engine_kit::{ABOVE, Model, Opened, RANGE, bytes, interval, options};
use quorate_storage::disk::SimDisk;
use quorate_storage::disk::sim::Dice;
use quorate_storage::engine::{
    Change, EngineError, Export, Position, RangeTable, ScanRequest, Version,
};

const KEYS: u64 = 40;
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// Writes `count` times, with history, deletes, metadata, a value larger than
/// a chunk, and a floor below the middle.
async fn fill(opened: &Opened, dice: &mut Dice, count: u64) -> Model {
    let mut model = Model::default();
    for number in 0..count {
        let value = dice.percent(80).then(|| dice.below(2000));
        let change = model.write(dice.below(KEYS), 1 << dice.below(26), value);
        opened.table.apply(model.position, vec![change]);
        if number == count / 2 {
            model.set_floor(model.revision / 2);
            opened.table.set_floor(model.revision / 2);
            let change = model.put(dice.below(KEYS), vec![dice.any() as u8; 700_000].into());
            opened.table.apply(model.position, vec![change]);
        }
    }
    let meta = [("b", "two"), ("a", "one"), ("gone", "x")];
    let meta = meta.map(|(key, value)| (bytes(key), Some(bytes(value))));
    opened.table.freeze(meta.to_vec());
    opened
        .table
        .flush_all(vec![(bytes("gone"), None)])
        .await
        .unwrap();
    model
}

fn assert_is(table: &RangeTable, model: &Model) {
    assert_eq!(table.applied(), Some(model.position));
    assert_eq!(table.last_revision(), model.revision);
    assert_eq!(table.floor(), model.floor());
    for key in (0..KEYS).map(|key| model.key(key)) {
        assert_eq!(
            table.history(&key, usize::MAX).unwrap(),
            model.history(&key, usize::MAX)
        );
    }
    let mut request = ScanRequest::default();
    let mut rows = Vec::new();
    loop {
        let page = table.scan(&request).unwrap();
        rows.extend(page.rows);
        match page.resume {
            Some(resume) => request.start = resume,
            None => break,
        }
    }
    assert_eq!(rows, model.scan(&ScanRequest::default()));
}

fn chunks(export: Export) -> Vec<Bytes> {
    export.collect::<Result<_, _>>().unwrap()
}

fn feed(chunks: &[Bytes]) -> impl Iterator<Item = Result<Bytes, EngineError>> {
    chunks.iter().cloned().map(Ok)
}

#[tokio::test]
async fn an_export_imports_as_the_same_range() {
    let (from, to) = (SimDisk::new(), SimDisk::new());
    let (from, to) = (Opened::new(&from, options()), Opened::new(&to, options()));
    let mut dice = Dice::new(1);
    let mut model = fill(&from, &mut dice, 500).await;
    fill(&to, &mut dice, 300).await;
    let export = from.table.export().unwrap();
    assert_eq!(export.position(), Some(model.position));
    // What is written later is not in it.
    let exported = model.clone();
    let change = model.write(1, 1, Some(3));
    from.table.apply(model.position, vec![change]);
    from.table.flush_all(vec![]).await.unwrap();
    let chunks = chunks(export);
    assert!(chunks.len() > 2 && chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES_MAX));

    let position = to.table.import(feed(&chunks)).unwrap();
    assert_eq!(position, Some(exported.position));
    assert_eq!(to.table.durable(), position);
    assert_is(&to.table, &exported);
    let meta = vec![(bytes("a"), bytes("one")), (bytes("b"), bytes("two"))];
    assert_eq!(to.table.meta_scan(b"").unwrap(), meta);
    assert_eq!(to.table.meta(b"a").unwrap(), Some(bytes("one")));
    assert_eq!(to.table.meta(b"gone").unwrap(), None);
    // And goes on from there.
    let mut model = exported;
    let change = model.write(2, 1, None);
    to.table.apply(model.position, vec![change]);
    assert_is(&to.table, &model);
    to.table.flush_all(vec![]).await.unwrap();
    assert_is(&to.table, &model);
    assert_eq!(to.neighbours[0].get(b"a").unwrap().unwrap().value, "other");
    for opened in [from, to] {
        opened.engine.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_crash_in_an_import_leaves_all_old_or_all_new() {
    let source = SimDisk::new();
    let source = Opened::new(&source, options());
    let new = fill(&source, &mut Dice::new(1), 300).await;
    let chunks = chunks(source.table.export().unwrap());
    let (mut olds, mut news) = (0, 0);
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let disk = SimDisk::new();
        let opened = Opened::new(&disk, options());
        let old = fill(&opened, &mut dice, 100).await;
        let before = disk.counts().operations;
        disk.fail_power_after(dice.below(80));
        let imported = opened.table.import(feed(&chunks));
        assert_eq!(
            imported.is_err(),
            disk.is_powered_off(),
            "{}",
            disk.counts().operations - before
        );
        let disk = disk.power_cut(dice.any());
        let again = Opened::new(&disk, options());
        let is_new = again.table.durable() == Some(new.position);
        assert!(is_new || imported.is_err(), "seed {seed}");
        assert_is(&again.table, if is_new { &new } else { &old });
        olds += u64::from(!is_new);
        news += u64::from(is_new);
    }
    assert!(olds > 5 && news > 5, "{olds} old, {news} new");
}

#[tokio::test]
async fn unusable_chunks_change_nothing() {
    let (from, to) = (SimDisk::new(), SimDisk::new());
    let (from, to) = (Opened::new(&from, options()), Opened::new(&to, options()));
    let mut dice = Dice::new(5);
    fill(&from, &mut dice, 300).await;
    let old = fill(&to, &mut dice, 100).await;
    let good = chunks(from.table.export().unwrap());
    let mut bad = vec![
        Vec::new(),
        good[1..].to_vec(),
        good[..good.len() - 1].to_vec(),
    ];
    bad.push([&good[..1], &good[..1], &good[1..]].concat());
    for _ in 0..20 {
        let mut flipped = good.clone();
        let at = dice.below(good.len() as u64) as usize;
        let mut chunk = flipped[at].to_vec();
        let bit = dice.below(chunk.len() as u64 * 8);
        chunk[bit as usize / 8] ^= 1 << (bit % 8);
        flipped[at] = chunk.into();
        bad.push(flipped);
    }
    for chunks in bad {
        assert!(to.table.import(feed(&chunks)).is_err());
        assert_is(&to.table, &old);
    }
    let failing = feed(&good[..1]).chain([Err(EngineError::Closed)]);
    assert!(matches!(to.table.import(failing), Err(EngineError::Closed)));
    let other = to.neighbours[0].import(feed(&good)).unwrap_err();
    assert!(matches!(other, EngineError::Import { .. }), "{other}");
    assert!(to.engine.failed().is_none());
    assert!(to.table.import(feed(&good)).is_ok());
}

#[tokio::test]
async fn a_dropped_range_leaves_nothing_and_its_interval_is_free() {
    let disk = SimDisk::new();
    let opened = Opened::new(&disk, options());
    let model = fill(&opened, &mut Dice::new(3), 400).await;
    for neighbour in &opened.neighbours {
        neighbour.flush_all(vec![]).await.unwrap();
    }
    let ranges = opened.engine.ranges().unwrap();
    let ids: Vec<_> = ranges.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [ABOVE, RANGE, engine_kit::BELOW]);
    assert_eq!(ranges[1].1.position, Some(model.position));
    assert_eq!(ranges[1].1.interval, interval());

    opened.engine.drop_range(RANGE).unwrap();
    assert_eq!(opened.engine.ranges().unwrap().len(), 2);
    let dropped = opened.table.get(&model.key(1));
    assert!(matches!(
        dropped,
        Err(EngineError::Dropped { range: RANGE })
    ));
    // The old handle goes nowhere.
    let version = Version {
        revision: 1,
        expiry: None,
        value: bytes("late"),
        causal: None,
    };
    let change = Change::Put {
        key: model.key(1),
        version,
    };
    opened.table.apply(
        Position {
            term: 9,
            index: 9999,
        },
        vec![change],
    );
    opened.table.freeze(vec![]);
    let flushed = opened
        .table
        .flushed(Position {
            term: 9,
            index: 9999,
        })
        .await;
    assert!(matches!(flushed, Err(EngineError::Dropped { .. })));
    // Also after a crash before the data is removed.
    drop(opened);
    let disk = disk.power_cut(1);
    let opened = Opened::new(&disk, options());
    assert_eq!(opened.table.durable(), None);
    assert_eq!(opened.table.floor(), 0);
    assert_eq!(opened.table.meta_scan(b"").unwrap(), []);
    assert_is_empty(&opened.table);
    let mut model = Model::default();
    let change = model.write(1, 1, Some(1));
    opened.table.apply(model.position, vec![change]);
    opened.table.flush_all(vec![]).await.unwrap();
    assert_is(&opened.table, &model);
    opened.engine.close().await.unwrap();
}

fn assert_is_empty(table: &RangeTable) {
    let model = Model::default();
    for key in (0..KEYS).map(|key| model.key(key)) {
        assert_eq!(table.history(&key, 9).unwrap(), []);
        assert_eq!(table.get_at(&key, u64::MAX / 2).unwrap(), None);
    }
    for at in [None, Some(1 << 20), Some(1 << 40)] {
        let request = ScanRequest {
            at,
            ..ScanRequest::default()
        };
        assert_eq!(table.scan(&request).unwrap().rows, []);
    }
}

#[tokio::test]
async fn intervals_do_not_overlap_and_do_not_change() {
    let disk = SimDisk::new();
    let opened = Opened::new(&disk, options());
    let overlapping = opened.engine.open_range(8, (bytes("kk"), bytes("z")));
    assert!(matches!(
        overlapping,
        Err(EngineError::Overlap { range: 8, .. })
    ));
    let other = opened.engine.open_range(RANGE, (bytes("k"), bytes("kz")));
    assert!(matches!(
        other,
        Err(EngineError::IntervalDiffers { range: RANGE })
    ));
    opened
        .table
        .flush_all(vec![(bytes("m"), None)])
        .await
        .unwrap();
    while opened.engine.ranges().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    opened.engine.close().await.unwrap();
    drop(opened);
    let engine = quorate_storage::engine::Engine::open(
        std::sync::Arc::new(disk),
        std::path::Path::new(engine_kit::DIR),
        options(),
    )
    .unwrap();
    let other = engine.open_range(RANGE, (bytes("k"), bytes("kz")));
    assert!(matches!(
        other,
        Err(EngineError::IntervalDiffers { range: RANGE })
    ));
    let stored = engine.open_range(8, (bytes("a"), Bytes::new()));
    assert!(matches!(
        stored,
        Err(EngineError::Overlap { other: RANGE, .. })
    ));
}
