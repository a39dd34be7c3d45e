//! The log on the operating system's disk, with its own thread.

#![allow(clippy::unwrap_used)]

mod log_support;

use std::path::Path;

use log_support::{IDENTITY, append, entry, finish};
use quorate_storage::disk::RealDisk;
use quorate_storage::log::{LogError, LogId, LogOptions, NodeLog};

fn open_at(dir: &Path) -> Result<NodeLog, LogError> {
    let options = LogOptions {
        cache_bytes_max: 10_000,
        ..LogOptions::small(256 << 10)
    };
    NodeLog::open(RealDisk::shared(), dir, IDENTITY, options)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_find_everything_again() {
    const WRITERS: u64 = 8;
    const ENTRIES: u64 = 150;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/log");
    let log = open_at(&path).unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|id| {
            let group = log.group(id);
            tokio::spawn(async move {
                for index in 1..=ENTRIES {
                    append(&group, vec![entry(1, index, vec![id as u8; 500])])
                        .await
                        .unwrap();
                    let found = group.read(index.max(49) - 48..index + 1, u64::MAX).unwrap();
                    assert_eq!(found.last().unwrap().index, index);
                    if index == 100 {
                        let id = LogId { term: 1, index: 50 };
                        finish(|done| group.purge(id, done)).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(matches!(open_at(&path), Err(LogError::InUse)));
    log.close().await;
    let log = open_at(&path).unwrap();
    for id in 0..WRITERS {
        let found = log.group(id).read(51..ENTRIES + 1, u64::MAX).unwrap();
        assert_eq!(found.len() as u64, ENTRIES - 50);
        assert!(
            found
                .iter()
                .all(|entry| entry.payload.iter().all(|byte| *byte == id as u8))
        );
    }
    log.close().await;
}

#[test]
fn a_log_that_is_dropped_closes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_at(dir.path()).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    log.group(1).append(
        vec![entry(1, 1, "x")],
        Box::new(move |result| sender.send(result).unwrap()),
    );
    drop(log);
    receiver.recv().unwrap().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let log = loop {
        match open_at(dir.path()) {
            Err(LogError::InUse) if std::time::Instant::now() < deadline => {
                std::thread::yield_now();
            }
            opened => break opened.unwrap(),
        }
    };
    assert_eq!(log.group(1).last(), Some(LogId { term: 1, index: 1 }));
}
