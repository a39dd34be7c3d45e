//! The files themselves: a log of version 1 stays readable, and what this
//! program writes stays version 1 to the byte. `QUORATE_GOLDEN=write` writes
//! the file anew, which only a new version justifies.

#![allow(clippy::unwrap_used)]

mod log_support;

use std::path::{Path, PathBuf};

use log_support::{IDENTITY, append, entry, finish, folder, open, shared, simulate};
use quorate_storage::disk::{Disk, OpenMode, RealDisk, SimDisk};
use quorate_storage::log::{
    FORMAT_VERSION, LogError, LogId, LogIdentity, LogOptions, NodeLog, Vote, inspect,
};

const SEGMENT: &str = "segment-0000000000000001.log";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/log-v1")
        .join(SEGMENT)
}

fn options() -> LogOptions {
    LogOptions::small(16 << 10)
}

/// One of every record, each in a batch of its own, but for the last two.
async fn write_all_kinds(log: &NodeLog) {
    let (one, two, gone) = (log.group(1), log.group(2), log.group(3));
    append(
        &one,
        vec![entry(1, 1, "first"), entry(1, 2, ""), entry(1, 3, "third")],
    )
    .await
    .unwrap();
    append(&two, vec![entry(7, 10, vec![0xAB; 1000])])
        .await
        .unwrap();
    let vote = |committed| Vote {
        term: 7,
        node: 2,
        committed,
    };
    finish(|done| one.save_vote(vote(false), done))
        .await
        .unwrap();
    finish(|done| two.save_vote(vote(true), done))
        .await
        .unwrap();
    finish(|done| one.truncate_after(Some(2), done))
        .await
        .unwrap();
    append(&one, vec![entry(2, 3, "third again")])
        .await
        .unwrap();
    finish(|done| one.purge(LogId { term: 1, index: 1 }, done))
        .await
        .unwrap();
    append(&gone, vec![entry(1, 1, "x")]).await.unwrap();
    finish(|done| gone.truncate_after(None, done))
        .await
        .unwrap();
    finish(|done| log.remove_group(3, done)).await.unwrap();
    two.save_committed(None);
    one.save_committed(Some(LogId { term: 1, index: 2 }));
    log.close().await;
}

fn check_all_kinds(log: &NodeLog) {
    assert_eq!(log.groups(), [1, 2]);
    let (one, two) = (log.group(1), log.group(2));
    assert_eq!(
        one.vote(),
        Some(Vote {
            term: 7,
            node: 2,
            committed: false
        })
    );
    assert_eq!(
        two.vote(),
        Some(Vote {
            term: 7,
            node: 2,
            committed: true
        })
    );
    assert_eq!(one.purged(), Some(LogId { term: 1, index: 1 }));
    assert_eq!(one.committed(), Some(LogId { term: 1, index: 2 }));
    assert_eq!(two.committed(), None);
    assert_eq!(
        one.read(2..9, 1000).unwrap(),
        [entry(1, 2, ""), entry(2, 3, "third again")]
    );
    assert_eq!(
        two.read(10..11, 1000).unwrap(),
        [entry(7, 10, vec![0xAB; 1000])]
    );
}

/// The bytes that this program writes.
fn written() -> Vec<u8> {
    simulate(async {
        let disk = SimDisk::new();
        let log = open(&disk, options()).unwrap();
        write_all_kinds(&log).await;
        check_all_kinds(&open(&disk, options()).unwrap());
        // Opened again, it has a batch more: the golden file is from before.
        let disk = SimDisk::new();
        write_all_kinds(&open(&disk, options()).unwrap()).await;
        disk.read_whole(&folder().join(SEGMENT)).unwrap()
    })
}

#[test]
fn what_is_written_is_version_one() {
    if std::env::var("QUORATE_GOLDEN").is_ok_and(|wish| wish == "write") {
        std::fs::create_dir_all(golden().parent().unwrap()).unwrap();
        std::fs::write(golden(), written()).unwrap();
    }
    assert_eq!(FORMAT_VERSION, 1);
    assert!(
        written() == std::fs::read(golden()).unwrap(),
        "the bytes on disk have changed"
    );
}

#[tokio::test]
async fn a_log_of_version_one_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(golden(), dir.path().join(SEGMENT)).unwrap();
    let disk = RealDisk::shared();
    let report = inspect(&disk, dir.path()).unwrap();
    assert!(report.damage.is_none(), "{report:?}");
    assert_eq!(report.identity, Some(IDENTITY));
    assert_eq!(report.segments.len(), 1);
    assert_eq!(report.groups[&1].last, Some(LogId { term: 2, index: 3 }));
    assert_eq!(report.groups[&1].first, Some(2));
    assert_eq!(report.groups[&2].payload_bytes, 1000);
    let log = NodeLog::open(disk, dir.path(), IDENTITY, options()).unwrap();
    check_all_kinds(&log);
    append(&log.group(1), vec![entry(2, 4, "and on")])
        .await
        .unwrap();
    log.close().await;
}

/// A closed log on a simulated disk.
async fn closed_log() -> SimDisk {
    let disk = SimDisk::new();
    let log = open(&disk, options()).unwrap();
    append(&log.group(1), vec![entry(1, 1, "x")]).await.unwrap();
    log.close().await;
    disk
}

#[test]
fn another_nodes_or_clusters_log_is_refused() {
    simulate(async {
        let disk = closed_log().await;
        let check = |identity, expected: &str| {
            let bytes = disk.counts().bytes_written;
            let opened = NodeLog::open(shared(&disk), folder(), identity, options());
            assert_eq!(opened.unwrap_err().to_string(), expected);
            assert_eq!(disk.counts().bytes_written, bytes, "nothing was changed");
        };
        check(
            LogIdentity {
                node: 4,
                ..IDENTITY
            },
            "the log belongs to node 3 of cluster 07070707070707070707070707070707, \
             not to node 4 of cluster 07070707070707070707070707070707",
        );
        check(
            LogIdentity {
                cluster: [0xF0; 16],
                ..IDENTITY
            },
            "the log belongs to node 3 of cluster 07070707070707070707070707070707, \
             not to node 3 of cluster f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0",
        );
        open(&disk, options()).unwrap();
    });
}

#[test]
fn another_version_is_refused() {
    simulate(async {
        let disk = closed_log().await;
        let file = disk
            .open(&folder().join(SEGMENT), OpenMode::Existing)
            .unwrap();
        let mut header = [0; 64];
        file.read_at(&mut header, 0).unwrap();
        header[8..12].copy_from_slice(&2u32.to_le_bytes());
        let checksum = crc32fast::hash(&header[..60]);
        header[60..64].copy_from_slice(&checksum.to_le_bytes());
        file.write_at(&header, 0).unwrap();
        let error = open(&disk, options()).unwrap_err();
        assert!(
            matches!(
                error,
                LogError::Version {
                    found: 2,
                    supported: 1
                }
            ),
            "{error}"
        );
        let report = inspect(&shared(&disk), folder()).unwrap();
        assert!(matches!(report.damage, Some(LogError::Version { .. })));
    });
}
