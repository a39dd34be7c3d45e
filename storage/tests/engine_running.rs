//! The engine at work: when it asks for flushes, what it does beside readers,
//! what it costs when nothing happens, how fast it is.

#![allow(clippy::unwrap_used)]

mod engine_kit;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine_kit::{ABOVE, DIR, Model, Opened, bytes, interval, options};
use quorate_storage::disk::{RealDisk, SimDisk};
use quorate_storage::engine::{
    Change, Engine, EngineError, EngineOptions, Position, RangeTable, ScanRequest, Version,
};

fn put(key: Bytes, revision: u64, value: Bytes) -> Change {
    let version = Version {
        revision,
        expiry: None,
        value,
        causal: None,
    };
    Change::Put { key, version }
}

#[tokio::test(start_paused = true)]
async fn old_data_asks_for_a_flush_and_idle_ranges_do_not() {
    let disk = SimDisk::new();
    let options = EngineOptions {
        flush_interval: Duration::from_secs(8),
        ..options()
    };
    let opened = Opened::new(&disk, options);
    for neighbour in &opened.neighbours {
        neighbour.flush_all(vec![]).await.unwrap();
    }
    let start = tokio::time::Instant::now();
    let hour = Duration::from_secs(3600);
    assert!(
        tokio::time::timeout(hour, opened.table.flush_due())
            .await
            .is_err()
    );
    assert_eq!(start.elapsed(), hour, "nothing unflushed, nothing due");

    let mut model = Model::default();
    for _ in 0..3 {
        let start = tokio::time::Instant::now();
        let change = model.write(1, 1, Some(1));
        opened.table.apply(model.position, vec![change]);
        assert!(!opened.table.wants_flush());
        opened.table.flush_due().await;
        let waited = start.elapsed();
        assert!(
            waited >= Duration::from_secs(8) && waited <= Duration::from_secs(12),
            "{waited:?}"
        );
        assert!(opened.table.wants_flush());
        opened.table.flush_all(vec![]).await.unwrap();
        assert!(!opened.table.wants_flush());
    }
    assert!(!opened.neighbours[0].wants_flush());
}

#[tokio::test]
async fn scarce_memory_asks_the_ranges_that_hold_most() {
    let disk = SimDisk::new();
    let options = EngineOptions {
        memory_bytes_max: 1 << 20,
        ..options()
    };
    let opened = Opened::new(&disk, options);
    let mut model = Model::default();
    let mut index = 0;
    // A large range that is no longer written to, and a small busy one.
    while opened.table.backlog_bytes() < 240 << 10 {
        let change = model.write(index, 1, Some(30));
        opened.table.apply(model.position, vec![change]);
        index += 1;
    }
    assert!(!opened.table.wants_flush());
    let busy = &opened.neighbours[0];
    while !opened.table.wants_flush() {
        assert!(opened.table.backlog_bytes() < 1 << 20, "nobody was asked");
        index += 1;
        let change = put(
            bytes(&format!("b{}", index % 50)),
            1 << 40 | index,
            bytes("x"),
        );
        busy.apply(Position { term: 1, index }, vec![change]);
        tokio::task::yield_now().await;
    }
    let backlog = opened.table.backlog_bytes();
    opened.table.flush_all(vec![]).await.unwrap();
    busy.flush_all(vec![]).await.unwrap();
    opened.neighbours[1].flush_all(vec![]).await.unwrap();
    assert!(backlog > 400 << 10);
    assert_eq!(opened.table.backlog_bytes(), 0, "memory is given back");
    assert_eq!(opened.engine.stats().memory_bytes, 0);
    assert!(opened.engine.stats().flushes >= 3);
}

#[tokio::test]
async fn old_history_leaves_the_file_in_steps() {
    let disk = SimDisk::new();
    let opened = Opened::new(&disk, options());
    let mut model = Model::default();
    // Each flush leaves a run.
    for number in 0..400 {
        let change = model.write(number % 4, 1 << 24, Some(5));
        opened.table.apply(model.position, vec![change]);
        if number % 20 == 19 {
            opened.table.flush_all(vec![]).await.unwrap();
        }
    }
    let full = opened
        .table
        .export()
        .unwrap()
        .map(|chunk| chunk.unwrap().len())
        .sum::<usize>();
    model.set_floor(model.revision);
    opened.table.set_floor(model.revision);
    model.position.index += 1;
    opened.table.apply(model.position, vec![]);
    opened.table.flush_all(vec![]).await.unwrap();
    // One block a step: the flush has done the first step only.
    let flushes = opened.engine.stats().flushes;
    let synced = opened.engine.stats().syncs;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let syncs = opened.engine.stats().syncs;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        if opened.engine.stats().syncs == syncs && syncs > synced {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    assert_eq!(opened.engine.stats().flushes, flushes);
    let left = opened
        .table
        .export()
        .unwrap()
        .map(|chunk| chunk.unwrap().len())
        .sum::<usize>();
    assert!(left < full / 10, "{left} of {full} bytes");
    for key in (0..4).map(|key| model.key(key)) {
        assert_eq!(
            opened.table.history(&key, 9).unwrap(),
            model.history(&key, 9)
        );
    }
}

/// One writer, readers and flushes on threads: every read sees one applied
/// position, in which all keys have the same value.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_beside_flushes_see_whole_positions() {
    let folder = tempfile::tempdir().unwrap();
    let options = EngineOptions {
        files: 1,
        ..options()
    };
    let engine = Engine::open(RealDisk::shared(), folder.path(), options).unwrap();
    let table = engine.open_range(1, interval()).unwrap();
    let keys: Vec<_> = (0..20).map(|key| bytes(&format!("k{key:03}"))).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let applied = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..3)
        .map(|reader| {
            let (table, stop, applied) = (table.clone(), stop.clone(), applied.clone());
            std::thread::spawn(move || {
                let mut reads = 0;
                while !stop.load(Ordering::Relaxed) {
                    read_whole(&table, applied.load(Ordering::Acquire), reader);
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    for index in 1..1500_u64 {
        // Every tenth position deletes all keys.
        let change = |key: &Bytes| match index % 10 {
            0 => Change::Delete {
                key: key.clone(),
                revision: index << 20,
            },
            _ => put(
                key.clone(),
                index << 20,
                Bytes::copy_from_slice(&index.to_le_bytes()),
            ),
        };
        table.apply(
            Position { term: 1, index },
            keys.iter().map(change).collect(),
        );
        applied.store(index, Ordering::Release);
        if index % 7 == 0 {
            table.freeze(vec![]);
        }
        if index % 100 == 0 {
            table.flush_all(vec![]).await.unwrap();
            table.set_floor((index - 50) << 20);
        }
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
    engine.close().await.unwrap();
}

fn read_whole(table: &RangeTable, applied: u64, reader: u64) {
    let at = (reader != 0 && applied > 0).then_some(applied << 20);
    let request = ScanRequest {
        at,
        reverse: reader == 2,
        ..ScanRequest::default()
    };
    let Ok(page) = table.scan(&request) else {
        // The floor has passed the revision meanwhile.
        return;
    };
    let revisions: Vec<_> = page
        .rows
        .iter()
        .map(|(_, version)| version.revision)
        .collect();
    let expected = if revisions.is_empty() { 0 } else { 20 };
    assert_eq!(revisions.len(), expected, "{at:?}");
    assert!(
        revisions.windows(2).all(|pair| pair[0] == pair[1]),
        "{revisions:?}"
    );
    match at {
        Some(at) if applied.is_multiple_of(10) => assert!(page.rows.is_empty(), "{at}"),
        Some(at) => assert!(revisions.iter().all(|revision| *revision == at)),
        None => {}
    }
    if at.is_none() && applied % 10 != 9 && !applied.is_multiple_of(10) {
        let newest = table.get(b"k007").unwrap();
        assert!(newest.is_none_or(|newest| newest.revision >= applied << 20));
    }
}

#[tokio::test]
async fn a_real_folder_survives_an_engine_that_was_not_closed() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    for _ in 0..3 {
        let engine = open_when_free(folder.path());
        let table = engine.open_range(ABOVE, interval()).unwrap();
        assert_eq!(table.last_revision(), model.revision);
        for key in 0..50 {
            let key = model.key(key);
            assert_eq!(table.get(&key).unwrap(), model.get(&key, None));
        }
        for key in 0..50 {
            let change = model.write(key, 1000, Some(key));
            table.apply(model.position, vec![change]);
        }
        table.flush_all(vec![]).await.unwrap();
        drop((table, engine));
    }
}

#[tokio::test]
async fn handles_and_their_futures_go_to_other_threads() {
    let disk = SimDisk::new();
    let opened = Opened::new(&disk, options());
    let (engine, table) = (opened.engine.clone(), opened.table.clone());
    let task = tokio::spawn(async move {
        table.apply(
            Position { term: 1, index: 1 },
            vec![put(bytes("k"), 1, bytes("v"))],
        );
        let durable = table.flush_all(vec![]).await.unwrap();
        let due = tokio::time::timeout(Duration::ZERO, table.flush_due()).await;
        assert!(due.is_err());
        engine.close().await.unwrap();
        durable
    });
    assert_eq!(task.await.unwrap(), Some(Position { term: 1, index: 1 }));
    // Closed: the folder is free though handles are left, and reads say why.
    assert!(Opened::try_new(&disk, options()).is_ok());
    let closed = opened.table.get(b"k");
    assert!(matches!(closed, Err(EngineError::Closed)), "{closed:?}");
    assert!(opened.engine.failed().is_none());
}

/// Opens a folder whose engine was let go: its workers end a moment later.
fn open_when_free(folder: &Path) -> Engine {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Engine::open(RealDisk::shared(), folder, options()) {
            Ok(engine) => return engine,
            Err(EngineError::InUse) if Instant::now() < deadline => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Time that this thread was running, where the system tells.
fn cpu_time() -> Duration {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let running = times.split(' ').next().and_then(|time| time.parse().ok());
    Duration::from_nanos(running.unwrap_or(0))
}

/// `cargo test --release -p quorate-storage --test engine_running -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints timings; wants a release build and a quiet machine"]
#[allow(clippy::print_stdout)]
async fn timings() {
    const COUNT: u64 = 60_000;
    let folder = tempfile::tempdir().unwrap();
    let options = EngineOptions {
        files: 1,
        memory_bytes_max: 1 << 30,
        ..EngineOptions::default()
    };
    let engine = Engine::open(RealDisk::shared(), &folder.path().join(&DIR[1..]), options).unwrap();
    let table = engine.open_range(1, interval()).unwrap();
    let value = Bytes::from(vec![7; 256]);
    let key = |number: u64| {
        bytes(&format!(
            "k{:020}",
            number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ))
    };
    let changes: Vec<_> = (1..=COUNT)
        .map(|at| (at, put(key(at), at << 10, value.clone())))
        .collect();
    let report = |what: &str, count: u64, start: (Instant, Duration)| {
        let (time, used) = (start.0.elapsed(), cpu_time() - start.1);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
        println!(
            "{what:20} {:>9.2} us each, {:>9.2} us of this thread's CPU",
            each(time),
            each(used)
        );
    };
    let now = || (Instant::now(), cpu_time());

    let start = now();
    for (index, change) in changes {
        table.apply(Position { term: 1, index }, vec![change]);
    }
    report("apply, 256 bytes", COUNT, start);
    let keys: Vec<_> = (1..=COUNT).map(key).collect();
    let get_all = || {
        keys.iter()
            .for_each(|key| assert!(table.get(key).unwrap().is_some()))
    };
    let start = now();
    get_all();
    report("get, memory", keys.len() as u64, start);
    let start = now();
    table.flush_all(vec![]).await.unwrap();
    report("flush", COUNT, start);
    get_all();
    let start = now();
    get_all();
    report("get, file", keys.len() as u64, start);
    let start = now();
    let request = ScanRequest {
        rows_max: 50_000,
        bytes_max: usize::MAX,
        ..ScanRequest::default()
    };
    let rows = table.scan(&request).unwrap().rows.len() as u64;
    report("scan, file", rows, start);
    let start = now();
    table.hash().unwrap();
    report("hash, file", COUNT, start);
    let start = now();
    for index in 1..=64 {
        let change = put(key(index * 71), (COUNT + index) << 10, value.clone());
        table.apply(
            Position {
                term: 1,
                index: COUNT + index,
            },
            vec![change],
        );
    }
    table.flush_all(vec![]).await.unwrap();
    report("flush of 64 keys", 1, start);
    println!("{:?}", engine.stats());
    engine.close().await.unwrap();
}
