//! A disk that fails while the log is open: the first failure is final, told
//! to everybody, and loses nothing that was acknowledged.

#![allow(clippy::unwrap_used)]

mod log_support;

use std::sync::{Arc, Mutex};

use log_support::{append, entry, finish, folder, open, shared, simulate};
use quorate_storage::disk::SimDisk;
use quorate_storage::disk::sim::{Fault, FaultError, Operation};
use quorate_storage::log::{LogError, LogId, LogOptions, Vote};

fn fault(operation: Operation, error: FaultError, times: u64) -> Fault {
    Fault {
        operation,
        path_contains: "/log".to_owned(),
        after: 0,
        times,
        error,
    }
}

#[test]
fn a_failed_sync_ends_the_service() {
    simulate(async {
        let disk = SimDisk::new();
        let log = open(&disk, LogOptions::small(64 << 10)).unwrap();
        let group = log.group(1);
        append(&group, vec![entry(1, 1, "kept")]).await.unwrap();
        assert!(log.failed().is_none());
        let mut failure = log.on_failure();

        // It fails once; a second try would succeed, and must not be made.
        disk.inject(fault(Operation::Sync, FaultError::Broken, 1));
        let error = append(&group, vec![entry(1, 2, "lost")]).await.unwrap_err();
        assert!(
            matches!(
                *error,
                LogError::Disk {
                    action: "sync the log",
                    ..
                }
            ),
            "{error}"
        );
        failure.changed().await.unwrap();
        assert!(failure.borrow().is_some());
        assert!(log.failed().is_some());

        let bytes = disk.counts().bytes_written;
        append(&group, vec![entry(1, 3, "refused")])
            .await
            .unwrap_err();
        let vote = Vote {
            term: 9,
            node: 1,
            committed: false,
        };
        finish(|done| group.save_vote(vote, done))
            .await
            .unwrap_err();
        finish(|done| group.purge(LogId { term: 1, index: 1 }, done))
            .await
            .unwrap_err();
        log.close().await;
        assert_eq!(
            disk.counts().bytes_written,
            bytes,
            "nothing is written after a failure"
        );

        for seed in 0..20 {
            let log = open(&disk.power_cut(seed), LogOptions::small(64 << 10));
            // Each cut kills the handle before it; one is enough to look at.
            let Ok(log) = log else { break };
            assert_eq!(log.group(1).read(1..2, 100).unwrap(), [entry(1, 1, "kept")]);
            assert!(log.group(1).vote().is_none());
        }
    });
}

#[test]
fn reads_go_on_after_a_failure() {
    simulate(async {
        let disk = SimDisk::new();
        let options = LogOptions {
            cache_bytes_max: 0,
            ..LogOptions::small(64 << 10)
        };
        let log = open(&disk, options).unwrap();
        let group = log.group(1);
        append(&group, vec![entry(1, 1, "one"), entry(1, 2, "two")])
            .await
            .unwrap();
        disk.inject(fault(Operation::Write, FaultError::Full, 1));
        append(&group, vec![entry(1, 3, "three")])
            .await
            .unwrap_err();
        assert_eq!(
            group.read(1..3, 100).unwrap(),
            [entry(1, 1, "one"), entry(1, 2, "two")]
        );
    });
}

#[test]
fn every_waiter_learns_of_a_failure_in_order() {
    simulate(async {
        let disk = SimDisk::new();
        let log = open(&disk, LogOptions::small(64 << 10)).unwrap();
        disk.inject(Fault {
            after: 2,
            ..fault(Operation::Sync, FaultError::Broken, u64::MAX)
        });
        let answers = Arc::new(Mutex::new(Vec::new()));
        for index in 1..=50 {
            let answers = Arc::clone(&answers);
            let done = Box::new(move |result: Result<(), Arc<LogError>>| {
                answers.lock().unwrap().push((index, result.is_ok()));
            });
            log.group(index % 3)
                .append(vec![entry(1, (index - 1) / 3 + 1, "x")], done);
            tokio::task::yield_now().await;
        }
        log.close().await;
        let answers = answers.lock().unwrap().clone();
        assert_eq!(answers.len(), 50);
        assert!(answers.is_sorted_by_key(|(index, _)| *index));
        assert!(
            answers.is_sorted_by_key(|(_, ok)| !ok),
            "no success after a failure"
        );
        assert!(answers[0].1 && !answers[49].1);
    });
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    simulate(async {
        let disk = SimDisk::new();
        let options = LogOptions::small(32 << 10);
        let log = open(&disk, options.clone()).unwrap();
        // No further segment can be filled.
        disk.inject(Fault {
            path_contains: "spare".to_owned(),
            ..fault(Operation::Write, FaultError::Full, u64::MAX)
        });
        let group = log.group(1);
        let mut acknowledged = 0;
        let error = loop {
            match append(&group, vec![entry(1, acknowledged + 1, vec![3; 700])]).await {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
        };
        assert!(
            matches!(
                *error,
                LogError::Disk {
                    action: "fill a segment",
                    ..
                }
            ),
            "{error}"
        );
        assert!(acknowledged > 10, "the first segment is used to its end");
        let log = open(&disk.power_cut(3), options).unwrap();
        assert!(log.group(1).last().unwrap().index >= acknowledged);
        append(&log.group(2), vec![entry(1, 1, vec![3; 7000])])
            .await
            .unwrap();
    });
}

#[test]
fn a_full_disk_is_named_at_start_and_changes_nothing() {
    simulate(async {
        let disk = SimDisk::new();
        disk.inject(fault(Operation::Write, FaultError::Full, 1));
        let error = open(&disk, LogOptions::small(32 << 10)).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("No space left"), "{source}");
        open(&disk, LogOptions::small(32 << 10)).unwrap();
    });
}

#[test]
fn a_folder_in_use_is_refused() {
    simulate(async {
        let disk = SimDisk::new();
        let log = open(&disk, LogOptions::small(32 << 10)).unwrap();
        let error = open(&disk, LogOptions::small(32 << 10)).unwrap_err();
        assert!(matches!(error, LogError::InUse), "{error}");
        log.close().await;
        open(&disk, LogOptions::small(32 << 10)).unwrap();
    });
}

#[test]
fn requests_after_closing_are_refused_and_those_before_are_written() {
    simulate(async {
        let disk = SimDisk::new();
        let log = open(&disk, LogOptions::small(32 << 10)).unwrap();
        let group = log.group(1);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        group.append(
            vec![entry(1, 1, "x")],
            Box::new(move |result| drop(sender.send(result))),
        );
        group.save_committed(Some(LogId { term: 1, index: 1 }));
        log.close().await;
        receiver.await.unwrap().unwrap();
        let error = append(&group, vec![entry(1, 2, "x")]).await.unwrap_err();
        assert!(matches!(*error, LogError::Closed), "{error}");
        let log = open(&disk.power_cut(0), LogOptions::small(32 << 10)).unwrap();
        assert_eq!(log.group(1).committed(), Some(LogId { term: 1, index: 1 }));
    });
}

#[test]
fn bad_requests_are_named_and_change_nothing() {
    simulate(async {
        let disk = SimDisk::new();
        let log = open(&disk, LogOptions::small(32 << 10)).unwrap();
        let group = log.group(4);
        append(&group, vec![entry(1, 7, "any index starts a group")])
            .await
            .unwrap();
        let check = async |entries, expected: &str| {
            let error = append(&group, entries).await.unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check(
            vec![entry(1, 9, "x")],
            "entry 9 does not follow the last entry of group 4, which is Some(7)",
        )
        .await;
        check(
            vec![entry(1, 8, "x"), entry(1, 8, "x")],
            "entry 8 does not follow the last entry of group 4, which is Some(8)",
        )
        .await;
        check(
            vec![entry(1, 8, vec![0; 40_000])],
            "an entry of 40000 bytes is over the log's limit of 27548",
        )
        .await;
        append(&group, Vec::new()).await.unwrap();
        assert_eq!(group.last(), Some(LogId { term: 1, index: 7 }));
        finish(|done| group.purge(LogId { term: 1, index: 7 }, done))
            .await
            .unwrap();
        let error = group.read(5..9, 100).unwrap_err();
        assert_eq!(error.to_string(), "entry 5 of group 4 is purged");
        assert!(log.failed().is_none());
        assert!(shared(&disk).exists(folder()).unwrap());
    });
}
