//! Files of each format version, kept in `golden/`, stay readable.
//!
//! `cargo test -p quorate-storage --test engine_golden -- --ignored` writes
//! the present version's anew, for a new version.

#![allow(clippy::unwrap_used)]

mod engine_kit;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use engine_kit::{DIR, Model, RANGE, bytes, interval, options};
use quorate_storage::disk::{Disk, SimDisk};
use quorate_storage::engine::{Engine, EngineOptions, RangeTable, ScanRequest};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn open(disk: &SimDisk) -> (Engine, RangeTable) {
    let options = EngineOptions {
        files: 1,
        ..options()
    };
    let engine = Engine::open(Arc::new(disk.clone()), Path::new(DIR), options).unwrap();
    let table = engine.open_range(RANGE, interval()).unwrap();
    (engine, table)
}

/// What is in the golden files: values with and without expiry, a large one,
/// deletes, history on both sides of a floor.
fn fill(table: &RangeTable) -> Model {
    let mut model = Model::default();
    for number in 0..60_u64 {
        let value = (number % 6 != 0).then_some(number);
        let mut changes = vec![model.write(number % 8, 1 << 23, value)];
        if number == 30 {
            changes.push(model.put(9, vec![9; 6000].into()));
            model.set_floor(model.revision);
        }
        table.apply(model.position, changes);
        if number == 30 {
            table.set_floor(model.floor());
        }
    }
    model
}

fn assert_is_filled(table: &RangeTable) {
    let disk = SimDisk::new();
    let (_, other) = open(&disk);
    let model = fill(&other);
    assert_eq!(table.durable(), Some(model.position));
    assert_eq!(table.floor(), model.floor());
    assert_eq!(table.last_revision(), model.revision);
    assert_eq!(table.meta(b"name").unwrap(), Some(bytes("golden")));
    let rows = table.scan(&ScanRequest::default()).unwrap().rows;
    assert_eq!(rows, model.scan(&ScanRequest::default()));
    for key in (0..10).map(|key| model.key(key)) {
        assert_eq!(table.history(&key, 99).unwrap(), model.history(&key, 99));
    }
    assert_eq!(table.hash().unwrap(), other.hash().unwrap());
}

#[tokio::test]
async fn a_file_of_version_1_opens_and_takes_writes() {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let file = std::fs::read(golden("engine-v1.redb")).unwrap();
    disk.write_atomically(&Path::new(DIR).join("engine-0.redb"), &file)
        .unwrap();
    let (engine, table) = open(&disk);
    assert_is_filled(&table);
    // The hash is part of what nodes of different versions compare.
    let hash: String = table
        .hash()
        .unwrap()
        .1
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hash, "760ad7521ee28a8ecb04332d90974c20");
    table
        .flush_all(vec![(bytes("more"), Some(bytes("meta")))])
        .await
        .unwrap();
    engine.close().await.unwrap();
}

#[tokio::test]
async fn an_export_of_version_1_imports() {
    let disk = SimDisk::new();
    let (engine, table) = open(&disk);
    let chunk = std::fs::read(golden("engine-export-v1.chunk")).unwrap();
    table.import([Ok(Bytes::from(chunk))].into_iter()).unwrap();
    assert_is_filled(&table);
    engine.close().await.unwrap();
}

#[tokio::test]
#[ignore = "writes the golden files"]
async fn write_golden_files() {
    let disk = SimDisk::new();
    let (engine, table) = open(&disk);
    fill(&table);
    table
        .flush_all(vec![(bytes("name"), Some(bytes("golden")))])
        .await
        .unwrap();
    let chunks: Vec<_> = table.export().unwrap().map(Result::unwrap).collect();
    assert_eq!(chunks.len(), 1);
    engine.close().await.unwrap();
    let file = disk
        .read_whole(&Path::new(DIR).join("engine-0.redb"))
        .unwrap();
    std::fs::write(golden("engine-v1.redb"), file).unwrap();
    std::fs::write(golden("engine-export-v1.chunk"), &chunks[0]).unwrap();
}
